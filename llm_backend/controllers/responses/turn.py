"""One response being answered by a local model: as events or whole, kept either way."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Self

import orjson

from llm_backend import errors
from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.controllers.chat_deltas import Transcript
from llm_backend.controllers.responses.events import ResponseState
from llm_backend.controllers.responses.memory import conversation_of
from llm_backend.controllers.responses.question import Question, asked
from llm_backend.controllers.responses.request import named_as_sent, repeated_fields
from llm_backend.controllers.responses.rounds import Happening, Model, RoundOver, Rounds
from llm_backend.controllers.services import Services
from llm_backend.sse import Alike, encode

__all__ = ["ResponseTurn"]

Json = dict[str, Any]
Body = Mapping[str, Any]

PIECES = ("response.output_text.delta", "response.reasoning_text.delta")


class ResponseTurn:
    """One response being answered: as events or whole, and kept either way."""

    def __init__(
        self, services: Services, question: Question, rounds: Rounds, held: AsyncExitStack
    ) -> None:
        self._services = services
        self._body = question.body
        self._own = question.own
        self._rounds = rounds
        self._held = held
        self._remembers = services.memory.wants(question.body)
        self._is_kept = False
        self._latest: tuple[str, str | None] | None = None  # type and item of the latest piece
        self._state = ResponseState(
            _head(question.body, is_stored=self._remembers),
            include=question.body.get("include") or (),
            annotate=question.tools.annotations,
        )

    @classmethod
    async def begin(cls, services: Services, model: Model, body: Json) -> Self:
        """The turn of this body, admitted by the model: its answer is to be taken, by `events` or
        by `response`. Raises what body, store, tools or model refuse."""
        async with AsyncExitStack() as held:
            question = await held.enter_async_context(asked(services, body))
            rounds = Rounds(model, question, calls_limit=_calls_limit(services, body))
            await held.enter_async_context(rounds)
            with named_as_sent():
                await rounds.admit()
            turn = cls(services, question, rounds, held)
            turn._held = held.pop_all()
            return turn

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer's events; before the last, or when their reader leaves, the response is
        kept."""
        async with self._ending():
            for event in self._state.start():
                yield _encoded(event)
            try:
                async with aclosing(self._rounds.said(self._output)) as said:
                    async for happening in said:
                        for event in self._take(happening):
                            yield self._alike(event)
                for event in self._finish():
                    yield _encoded(event)
                await self._keep()
            except errors.ApiError as error:
                for event in self._state.fail(error.message):
                    yield _encoded(event)
                self._keep_behind()
            yield _encoded(self._state.end())

    async def response(self) -> Json:
        """The whole answer, kept before it is given."""
        async with self._ending():
            try:
                await self._read()
                self._finish()
                await self._keep()
            except errors.ApiError as error:
                self._state.fail(error.message)
                self._keep_behind()
                raise
        return self._state.shown

    def error_event(self, error: errors.ApiError) -> bytes:
        """What a stream ends with that a mistake of the server broke."""
        return _encoded(self._state.error(error.code, error.message, error.param))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Whatever happens within, the response is kept as far as it came."""
        try:
            async with self._held:
                yield
        finally:
            if not self._is_kept:
                self._state.leave()
                self._keep_behind()

    async def _read(self) -> None:
        """Take all that happens. What the model says is joined first: its pieces are of no use
        where nobody reads them."""
        transcript = Transcript()

        def said_until_now() -> Sequence[Json]:
            nonlocal transcript
            for delta in transcript.deltas():
                self._state.take(delta)
            transcript = Transcript()
            return self._state.output

        try:
            async with aclosing(self._rounds.said(said_until_now)) as said:
                async for happening in said:
                    if isinstance(happening, ChatDelta):
                        transcript.add(happening)
                    else:
                        said_until_now()
                        self._take(happening)
        finally:
            said_until_now()

    def _output(self) -> Sequence[Json]:
        return self._state.output

    def _take(self, happening: Happening) -> list[Json]:
        match happening:
            case ChatDelta():
                return self._state.take(happening)
            case RoundOver():
                return self._state.pause()
            case _:
                return self._state.tell(happening)

    def _finish(self) -> list[Json]:
        usage = _usage(self._rounds.usage)
        return self._state.finish(self._rounds.reason, usage, int(time.time()))

    def _alike(self, event: Json) -> bytes:
        """The event, checked against the document only if it is the first of its kind and item."""
        kind = (event["type"], event.get("item_id"))
        encoded = _encoded(event)
        if event["type"] in PIECES and not event.get("logprobs"):
            if kind == self._latest:
                return Alike(encoded)
            self._latest = kind
        return encoded

    async def _keep(self) -> None:
        memory, response = self._services.responses, self._state.response
        if self._remembers:
            await memory.remember(self._body, response, self._own)
        else:
            await memory.append(self._body, response, self._own)
        self._is_kept = True

    def _keep_behind(self) -> None:
        self._is_kept = True
        if self._remembers:
            self._services.responses.remember_behind(self._body, self._state.response, self._own)


def _head(body: Body, *, is_stored: bool) -> Json:
    """What does not change of a response."""
    conversation_id = conversation_of(body)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "background": False,
        "conversation": None if conversation_id is None else {"id": conversation_id},
        **repeated_fields(body, is_stored=is_stored),
    }


def _calls_limit(services: Services, body: Body) -> int:
    """How many calls of the server's tools may be run."""
    limit = services.settings.tool_calls_limit
    wanted = body.get("max_tool_calls")
    return limit if wanted is None else min(limit, int(wanted))


def _encoded(event: Json) -> bytes:
    return encode(orjson.dumps(event), event["type"])


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
