"""Tokens of OpenAI's encodings, where a local model goes by a name of OpenAI's."""

import pytest

from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.controllers.generation.foreign_tokens import decode_foreign_tokens
from llm_backend.errors import InvalidRequest
from tests.backends.local.test_token_files import PIECES, file_in

HELLO = [257, PIECES.index(b"lo"), 259, ord("o")]  # hel lo _w o


@pytest.fixture
def files(tmp_path) -> TokenFiles:
    return TokenFiles(tmp_path, file_in(tmp_path))


@pytest.mark.parametrize(
    "model", ["text-embedding-3-small", "text-embedding-ada-002", "openai/text-embedding-3-large",
              "gpt-3.5-turbo-instruct", "gpt-4", "gpt-4-turbo", "davinci-002"]
)  # fmt: skip
async def test_tokens_are_read_as_openais_by_openais_names(files, model):
    inputs = ["a text", HELLO, [0xC3], [260]]

    assert await decode_foreign_tokens(files, model, inputs, "input") == [
        "a text", "hello wo", "\ufffd", "é",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "builtin", "text-embedding-nomic"])
async def test_tokens_are_the_models_own_by_its_own_name(files, model):
    assert await decode_foreign_tokens(files, model, [HELLO], "input") == [HELLO]


@pytest.mark.parametrize(
    ("model", "encoding"),
    [("text-embedding-3-small", "cl100k_base"), ("gpt-4o", "o200k_base"), ("o3", "o200k_base"),
     ("gpt-4.1-mini", "o200k_base"), ("gpt-5", "o200k_base")],
)  # fmt: skip
async def test_without_the_file_tokens_are_refused_and_texts_are_not(model, encoding):
    files = TokenFiles(None)
    with pytest.raises(InvalidRequest, match="check_embedding_ctx_length=False") as refused:
        await decode_foreign_tokens(files, model, ["a", HELLO], "input")

    assert refused.value.param == "input"
    assert encoding in refused.value.message
    assert await decode_foreign_tokens(files, model, ["a"], "input") == ["a"]


async def test_unknown_token_ids_are_refused_by_path(files):
    with pytest.raises(InvalidRequest) as refused:
        await decode_foreign_tokens(files, "text-embedding-3-small", ["a", [1, 100_000]], "input")

    assert refused.value.param == "input[1]"
