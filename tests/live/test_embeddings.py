"""Embeddings of a converted model, through the command line, the server and the official client."""

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from tests.serving import serve
from tests.strict_sdk import StrictOpenAI

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "models_convert" / "minilm_reference.json").read_text()
)["entries"][:24]
TEXTS = [entry["text"] for entry in REFERENCE]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory, minilm_file: Path) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("minilm")
    with (
        serve(folder, "--model", str(minilm_file), "--alias", "text-embedding-3-small") as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client


def reference(place: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(REFERENCE[place]["vector"]), "<f4")


def test_vectors_are_the_reference_implementations(minilm):
    answer = minilm.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS)

    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    for place, item in enumerate(answer.data):
        assert float(np.dot(reference(place), item.embedding)) >= 0.999, TEXTS[place]
    tokens = sum(len(entry["token_ids"]) for entry in REFERENCE)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == tokens


def test_tokens_by_a_name_of_openais_are_not_taken_for_the_models_own(minilm):
    for input in ([9906, 1917], [[9906], [1917]]):
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length") as refused:
            minilm.embeddings.create(model="text-embedding-3-small", input=input)
        own = minilm.embeddings.create(model="all-MiniLM-L6-v2", input=input)

        assert refused.value.param == "input"
        assert own.data


def test_numbers_and_base64_are_equal(minilm):
    numbers = minilm.embeddings.create(
        model="text-embedding-3-small", input=TEXTS[0], encoding_format="float"
    )
    coded = minilm.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=TEXTS[0], encoding_format="base64"
    )

    raw = base64.b64decode(json.loads(coded.content)["data"][0]["embedding"])
    assert len(raw) == 4 * 384
    assert np.frombuffer(raw, "<f4") == pytest.approx(numbers.data[0].embedding, abs=1e-6)


def test_fewer_dimensions_are_cut_and_have_length_one_again(minilm):
    short = minilm.embeddings.create(model="all-MiniLM-L6-v2", input=TEXTS[0], dimensions=64)

    vector = short.data[0].embedding
    cut = reference(0)[:64]
    assert len(vector) == 64
    assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)
    assert float(np.dot(cut / np.linalg.norm(cut), vector)) >= 0.999


def test_tokens_are_taken_as_they_are(minilm):
    tokens = REFERENCE[0]["token_ids"]
    by_tokens = minilm.embeddings.create(model="all-MiniLM-L6-v2", input=[tokens])

    assert float(np.dot(reference(0), by_tokens.data[0].embedding)) >= 0.999


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": "a", "dimensions": 385}, "dimensions"),
        ({"input": "word " * 600}, None),
        ({"input": [10**6]}, None),
    ],
)
def test_inputs_that_cannot_be_embedded_are_refused(minilm, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        minilm.embeddings.create(model="all-MiniLM-L6-v2", **fields)
    if param is not None:
        assert caught.value.param == param


def test_an_embedding_model_refuses_chats(minilm):
    with pytest.raises(openai.BadRequestError) as caught:
        minilm.chat.completions.create(
            model="all-MiniLM-L6-v2", messages=[{"role": "user", "content": "Hello"}]
        )
    assert caught.value.param == "model"
