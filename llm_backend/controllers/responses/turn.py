"""One response being answered by a local model: as events or whole, kept either way."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson

from llm_backend import errors
from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.backends.local import Answer
from llm_backend.controllers.answer_schema import AnswerSchema, checked
from llm_backend.controllers.chat_deltas import Transcript
from llm_backend.controllers.generation import chat_from
from llm_backend.controllers.responses.events import ResponseState
from llm_backend.controllers.responses.memory import conversation_of
from llm_backend.controllers.responses.request import chat_body, named_as_sent, repeated_fields
from llm_backend.controllers.services import Services
from llm_backend.controllers.structured import structure_from
from llm_backend.sse import Alike, encode

__all__ = ["ResponseTurn", "begin"]

Json = dict[str, Any]

PIECES = ("response.output_text.delta", "response.reasoning_text.delta")


async def begin(services: Services, body: Json) -> "ResponseTurn":
    """The turn that this body asks for; what it goes on from and refers to has been read."""
    before = await services.responses.said_before(body)
    own = await services.responses.input_items(body.get("input"))
    with named_as_sent():
        asked = chat_body(body, before, own)
        structure = await structure_from(asked)
        choices_limit = services.settings.choices_limit
        chat = chat_from(asked, choices_limit=choices_limit, grammar=structure.grammar)
    return ResponseTurn(services, body, own, chat, structure.schema)


class ResponseTurn:
    """One response being answered: as events or whole, and kept either way. `own` are the items of
    its input."""

    def __init__(
        self,
        services: Services,
        body: Json,
        own: Sequence[Json],
        chat: Chat,
        schema: AnswerSchema | None,
    ) -> None:
        self._services = services
        self._body = body
        self._own = own
        self.chat = chat
        self._schema = schema
        self._remembers = services.memory.wants(body)
        self._is_kept = False
        self._latest: tuple[str, str | None] | None = None  # type and item of the latest piece
        conversation_id = conversation_of(body)
        self._state = ResponseState(
            {
                "id": f"resp_{uuid.uuid4().hex}",
                "object": "response",
                "created_at": int(time.time()),
                "background": False,
                "conversation": None if conversation_id is None else {"id": conversation_id},
                **repeated_fields(body, is_stored=self._remembers),
            }
        )

    async def events(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """The answer's events; before the last, or when their reader leaves, the response is
        kept."""
        async with self._ending(), answer:
            for event in self._state.start():
                yield _encoded(event)
            try:
                reason = "stop"
                async with aclosing(self._deltas(answer)) as deltas:
                    async for delta in deltas:
                        for event in self._state.take(delta):
                            yield self._alike(event)
                        reason = delta.finish_reason or reason
                for event in self._state.finish(reason, _usage(answer.usage), int(time.time())):
                    yield _encoded(event)
                await self._keep()
            except errors.ApiError as error:
                for event in self._state.fail(error.message):
                    yield _encoded(event)
                self._keep_behind()
            yield _encoded(self._state.end())

    async def response(self, answer: Answer) -> Json:
        """The whole answer, kept before it is given."""
        async with self._ending():
            try:
                reason = await self._read(answer)
                self._state.finish(reason, _usage(answer.usage), int(time.time()))
                await self._keep()
            except errors.ApiError as error:
                self._state.fail(error.message)
                self._keep_behind()
                raise
        return self._state.response

    def error_event(self, error: errors.ApiError) -> bytes:
        """What a stream ends with that a mistake of the server broke."""
        return _encoded(self._state.error(error.code, error.message, error.param))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Whatever happens within, the response is kept as far as it came."""
        try:
            yield
        finally:
            if not self._is_kept:
                self._state.leave()
                self._keep_behind()

    async def _read(self, answer: Answer) -> str:
        """Take all that is said; gives why it ended."""
        transcript, reason = Transcript(), "stop"
        try:
            async with answer, aclosing(self._deltas(answer)) as deltas:
                async for delta in deltas:
                    transcript.add(delta)
                    reason = delta.finish_reason or reason
        finally:
            for delta in transcript.deltas():
                self._state.take(delta)
        return reason

    def _deltas(self, answer: Answer) -> AsyncGenerator[ChatDelta, None]:
        deltas = answer.chat(self.chat)
        return deltas if self._schema is None else checked(deltas, self._schema)

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
