"""Several prompts answered at once, as one stream of deltas."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Self

import pytest

from llm_backend.backends.base import TextDelta
from llm_backend.backends.local.token_files import TokenFiles
from llm_backend.controllers.completions import _answer, _MergedStream
from llm_backend.errors import ClientGone
from llm_backend.settings import Settings


class Answered:
    """An answer that gives these texts, or raises at the first that is an error."""

    def __init__(self, *parts: str | Exception) -> None:
        self._parts = parts
        self.is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_closed = True

    async def text_deltas(self) -> AsyncIterator[TextDelta]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield TextDelta(choice=0, text=part)


async def test_every_delta_has_the_index_of_its_answer():
    given = await texts_of([Answered("a", "b"), Answered("c")])

    assert sorted(given) == [(0, "a"), (0, "b"), (1, "c")]


async def texts_of(answers: list[Answered]) -> list[tuple[int, str]]:
    async with _MergedStream(answers) as deltas:
        return [(place, delta.text) async for place, delta in deltas]


class Silent(Answered):
    """An answer whose first token is long in coming."""

    async def text_deltas(self) -> AsyncIterator[TextDelta]:
        await asyncio.Event().wait()
        yield TextDelta(choice=0)


async def test_an_answer_that_fails_in_any_way_ends_them_all():
    answers = [Answered("a", RuntimeError("a bug")), Answered("c")]

    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="a bug"):
            await texts_of(answers)
    assert all(answer.is_closed for answer in answers)


async def test_a_disconnect_before_the_first_token_frees_the_slot():
    silent = Silent()

    async def complete(_prompts: object) -> list[Answered]:
        return [silent]

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    services = SimpleNamespace(settings=Settings(), token_files=TokenFiles(None))
    model = SimpleNamespace(complete=complete, with_defaults=dict)
    body = {"model": "m", "prompt": "p", "stream": True}
    request = SimpleNamespace(body=body, http=SimpleNamespace(receive=receive))

    async with asyncio.timeout(30):
        with pytest.raises(ClientGone):
            await _answer(services, request, model)
    assert silent.is_closed
