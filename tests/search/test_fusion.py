"""Two rankings as one."""

import pytest

from llm_backend.search import ScoredPoint, Weights, fuse

NEAREST = [
    ScoredPoint(id="a", score=0.9),
    ScoredPoint(id="b", score=0.5),
    ScoredPoint(id="c", score=-0.1),
]
WORDED = [ScoredPoint(id="d", score=7.0), ScoredPoint(id="b", score=3.0)]


def ids(embedding: float, text: float) -> list[str]:
    ranked = fuse(NEAREST, WORDED, Weights(embedding=embedding, text=text))
    return [one.id for one in ranked]


def test_fusion_ranks_points_of_both_rankings_first():
    assert ids(1, 1) == ["b", "a", "d", "c"]


@pytest.mark.parametrize(
    ("embedding", "text", "found"), [(1, 0, ["a", "b", "c"]), (0, 1, ["d", "b"])]
)
def test_fusion_ignores_a_ranking_without_weight(embedding, text, found):
    assert ids(embedding, text) == found


def test_fusion_score_is_1_for_the_first_of_both_and_similarity_is_bounded():
    ranked = fuse(NEAREST[:1], [ScoredPoint(id="a", score=2.0)], Weights(embedding=2, text=6))
    others = {one.id: one.similarity for one in fuse(NEAREST, WORDED, Weights())}

    assert [(one.id, one.score, one.similarity) for one in ranked] == [("a", 1.0, 0.9)]
    assert others == {"a": 0.9, "b": 0.5, "c": 0.0, "d": None}
