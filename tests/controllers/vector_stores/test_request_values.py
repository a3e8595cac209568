"""The document's words for ranking, filters and chunks."""

from typing import Any

import pytest

from llm_backend.controllers.vector_stores.request_values import (
    CONDITIONS_LIMIT,
    DEPTH_LIMIT,
    chunking_from,
    condition_from,
    ranking_from,
)
from llm_backend.errors import InvalidRequest
from llm_backend.search import Weights

EQUAL = {"type": "eq", "key": "a", "value": 1}


def hybrid(embedding: float, text: float) -> dict[str, Any]:
    return {"hybrid_search": {"embedding_weight": embedding, "text_weight": text}}


@pytest.mark.parametrize(
    ("options", "weights", "threshold"),
    [
        (None, Weights(embedding=1.0, text=1.0), 0.0),
        ({"ranker": "auto", "score_threshold": 0.3}, Weights(embedding=1.0, text=1.0), 0.3),
        (hybrid(0.2, 0.8), Weights(embedding=0.2, text=0.8), 0.0),
        ({"ranker": "none", **hybrid(0, 1)}, None, 0.0),
    ],
)
def test_ranking_weights_are_parsed(options, weights, threshold) -> None:
    assert ranking_from(options) == (weights, threshold)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"score_threshold": 1.1}, "ranking_options.score_threshold"),
        (hybrid(0, 0), "ranking_options.hybrid_search"),
        (hybrid(-1, 2), "ranking_options.hybrid_search"),
        (hybrid(1e308, 1e308), "ranking_options.hybrid_search"),
    ],
)
def test_a_ranking_that_makes_no_sense_is_named(options, param) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ranking_from(options, "tools[0].")

    assert refused.value.param == f"tools[0].{param}"


def nested(depth: int) -> dict[str, Any]:
    return EQUAL if not depth else {"type": "and", "filters": [nested(depth - 1)]}


def test_filters_are_bounded_in_number_and_depth() -> None:
    many = {"type": "or", "filters": [EQUAL] * CONDITIONS_LIMIT}

    assert condition_from(nested(DEPTH_LIMIT)) is not None
    for given in (nested(DEPTH_LIMIT + 1), many):
        with pytest.raises(InvalidRequest) as refused:
            condition_from(given, "tools[1].filters")
        assert refused.value.param == "tools[1].filters"


@pytest.mark.parametrize(("room", "most"), [(8192, 800), (256, 256)])
def test_chunks_fit_the_embedding_model_by_default(room, most) -> None:
    chunking = chunking_from({"type": "auto"}, input_limit=room)

    assert (chunking.max_tokens, chunking.overlap_tokens) == (most, most // 2)
