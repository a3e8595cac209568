"""Errors of embeddings requests about their numbers."""

import asyncio
from types import SimpleNamespace

import pytest

from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.controllers.embeddings import _answer, inputs_of
from llm_backend.engine.messages import Embedded
from llm_backend.errors import InvalidRequest


async def test_dimensions_that_the_model_has_not_are_named_as_they_were_given():
    async def embed(_inputs: object) -> Embedded:
        return Embedded(id="e", vectors=bytes(4 * 8), embedding_size=8, prompt_tokens=1)

    async def receive() -> None:
        await asyncio.Event().wait()  # the client stays

    settings = SimpleNamespace(inputs_limit=1)
    services = SimpleNamespace(settings=settings, token_files=TokenFiles(None))
    body = {"model": "m", "input": "text", "dimensions": 1536}
    meter = SimpleNamespace(count_tokens=lambda _tokens: None)
    request = SimpleNamespace(body=body, http=SimpleNamespace(receive=receive), meter=meter)

    with pytest.raises(InvalidRequest, match="`dimensions` is 1536; this model's vectors have 8"):
        await _answer(services, request, SimpleNamespace(embed=embed))


@pytest.mark.parametrize(
    ("tokens", "param"), [([1, -1], "input[1]"), ([[1], [2, -1]], "input[1][1]")]
)
def test_a_number_that_is_no_token_is_named_as_it_was_given(tokens: list[object], param: str):
    with pytest.raises(InvalidRequest) as refused:
        inputs_of({"model": "m", "input": tokens}, limit=9)

    assert refused.value.param == param
