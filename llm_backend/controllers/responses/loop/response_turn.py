"""Response turn: one response answered by a local model, streamed or whole, and stored."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Self

from llm_backend import errors, exact_json
from llm_backend.controllers.rendering.obfuscation import obfuscation_for
from llm_backend.controllers.responses.input.resolved_request import open_request
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.responses.loop.response_run import ResponseRun, new_head, open_run
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.sse import Alike, encode

__all__ = ["ResponseTurn"]

Body = Mapping[str, Any]

PIECES = ("response.output_text.delta", "response.reasoning_text.delta")


class ResponseTurn:
    """One response being answered, streamed or whole, and stored in either case. `held` releases
    its resources afterwards."""

    def __init__(
        self, services: Services, body: Body, answering: ResponseRun, held: AsyncExitStack
    ) -> None:
        self._services = services
        self._body = body
        self._answering = answering
        self._state = answering.state
        self._held = held
        self._remembers = services.memory.wants(body)
        usual = services.settings.obfuscate_streams
        self._obfuscation = obfuscation_for(body.get("stream_options"), usual=usual)
        self._is_kept = False
        # type and item id of the latest delta event
        self._latest: tuple[str, str | None] | None = None

    @classmethod
    async def begin(cls, services: Services, model: ResponseModel, body: JsonObject) -> Self:
        """Resolves the body and has the model admit it; the caller then takes `events` or
        `response`. Raises the errors of validation, store, tools and model."""
        is_stored, limit = services.memory.wants(body), services.settings.passages_limit
        head = new_head(body, is_stored=is_stored, passages_limit=limit)
        async with AsyncExitStack() as held:
            question = await held.enter_async_context(open_request(services, model, body))
            answering = await held.enter_async_context(open_run(services, model, question, head))
            return cls(services, body, answering, held.pop_all())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the encoded events. The response is stored before the last event, or when the
        client disconnects."""
        async with self._ending():
            for event in self._state.start():
                yield _encode(event)
            try:
                async with aclosing(self._answering.events()) as events:
                    async for event in events:
                        yield self._alike(event)
                await self._keep()
            except errors.ApiError as error:
                for event in self._state.fail(error):
                    yield _encode(event)
                self._keep_behind()
            yield _encode(self._state.end())

    async def response(self) -> JsonObject:
        """Returns the whole response, stored before."""
        async with self._ending():
            try:
                await self._answering.whole()
                await self._keep()
            except errors.ApiError as error:
                self._state.fail(error)
                self._keep_behind()
                raise
        return self._state.shown

    def error_event(self, error: errors.ApiError) -> bytes:
        """Returns the event that ends a stream after an internal error."""
        return _encode(self._state.error(error.code, error.message, error.param))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Stores the response on exit as far as it got, whatever exception ends the block."""
        try:
            async with self._held:
                yield
        finally:
            if not self._is_kept:
                self._state.leave()
                self._keep_behind()

    def _alike(self, event: JsonObject) -> bytes:
        """Encodes an event. A delta of the same type and item as the last one is marked `Alike`,
        so that it is not validated against the document again."""
        kind = (event["type"], event.get("item_id"))
        encoded = _encode(self._obfuscated(event))
        if event["type"] in PIECES and not event.get("logprobs"):
            if kind == self._latest:
                return Alike(encoded)
            self._latest = kind
        return encoded

    def _obfuscated(self, event: JsonObject) -> JsonObject:
        return event if self._obfuscation is None else self._obfuscation.with_event(event)

    async def _keep(self) -> None:
        memory, response = self._services.responses, self._state.response
        if self._remembers:
            await memory.remember(self._body, response, self._answering.question.own)
        else:
            await memory.append(self._body, response, self._answering.question.own)
        self._is_kept = True

    def _keep_behind(self) -> None:
        self._is_kept = True
        if self._remembers:
            self._services.responses.remember_behind(
                self._body, self._state.response, self._answering.question.own
            )


def _encode(event: JsonObject) -> bytes:
    return encode(exact_json.dumps(event), event["type"])
