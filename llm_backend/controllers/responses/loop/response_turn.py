"""Response turn: one response of a local or bridged model, streamed or whole, and stored."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Self

from llm_backend import errors, exact_json
from llm_backend.controllers.rendering.obfuscation import obfuscation_for
from llm_backend.controllers.responses.input.resolved_request import open_request
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.responses.loop.response_run import ResponseRun, new_head, open_run
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.sse import SimilarEvent, encode

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


DELTA_TYPES = ("response.output_text.delta", "response.reasoning_text.delta")


class ResponseTurn:
    """One response in progress, streamed or whole, and stored in either case. `resources` are
    released at its end."""

    def __init__(
        self,
        services: Services,
        body: "api.CreateResponse",
        run: ResponseRun,
        resources: AsyncExitStack,
    ) -> None:
        self._services = services
        self._body = body
        self._run = run
        self._state = run.state
        self._resources = resources
        self._stores_response = services.chat_recorder.should_store(body)
        default = services.settings.obfuscate_streams
        self._obfuscation = obfuscation_for(body.get("stream_options"), default=default)
        self._is_stored = False
        self._latest_delta: tuple[str, str | None] | None = None  # its type and item id

    @classmethod
    async def begin(
        cls, services: Services, model: ResponseModel, body: "api.CreateResponse"
    ) -> Self:
        """Resolves the body and waits until the model admits it. The caller then reads `events` or
        `response`. Raises the errors of validation, store, tools and model."""
        is_stored = services.chat_recorder.should_store(body)
        limit = services.settings.passages_limit
        head = new_head(body, is_stored=is_stored, passages_limit=limit)
        async with AsyncExitStack() as resources:
            resolved = await resources.enter_async_context(open_request(services, model, body))
            run = await resources.enter_async_context(open_run(services, model, resolved, head))
            return cls(services, body, run, resources.pop_all())

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the encoded events. The response is stored before the last event, even if it
        failed. So a client that gets this event can retrieve the response, unless the event says
        `store: false`. If the client disconnects, the response is stored in the background."""
        async with self._ending():
            for event in self._state.start():
                yield _encode(event)
            try:
                async with aclosing(self._run.events()) as events:
                    async for event in events:
                        yield self._encode_event(event)
                await self._store()
            except errors.ApiError as error:
                for event in self._state.fail(error):
                    yield _encode(event)
                await self._store_failed()
            yield _encode(self._state.end())

    async def response(self) -> "api.Response":
        """Returns the whole response, after storing it."""
        async with self._ending():
            try:
                await self._run.run_to_end()
                await self._store()
            except errors.ApiError as error:
                self._state.fail(error)
                self._store_in_background()
                raise
        return self._state.public_response

    def error_event(self, error: errors.ApiError) -> bytes:
        """Returns the event that ends a stream after an internal error."""
        return _encode(self._state.error(error.code, error.message, error.param))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Releases the resources on exit, and stores the response if the block did not do so."""
        try:
            async with self._resources:
                yield
        finally:
            if not self._is_stored:
                self._state.cancel()
                self._store_in_background()

    def _encode_event(self, event: JsonObject) -> bytes:
        """Encodes an event.

        A delta of the same type and item as the last one is marked `SimilarEvent`, so that it is
        not validated against the document again.
        """
        kind = (event["type"], event.get("item_id"))
        encoded = _encode(self._obfuscate(event))
        if event["type"] in DELTA_TYPES and not event.get("logprobs"):
            if kind == self._latest_delta:
                return SimilarEvent(encoded)
            self._latest_delta = kind
        return encoded

    def _obfuscate(self, event: JsonObject) -> JsonObject:
        return event if self._obfuscation is None else self._obfuscation.with_event(event)

    async def _store(self) -> None:
        responses, response = self._services.responses, self._state.response
        if self._stores_response:
            await responses.store(self._body, response, self._run.resolved.input_items)
        else:
            await responses.append(self._body, response, self._run.resolved.input_items)
        self._is_stored = True

    async def _store_failed(self) -> None:
        """Stores the failed response. If that fails, the response says `store: false`."""
        if self._stores_response and not await self._services.responses.try_store(
            self._body, self._state.response, self._run.resolved.input_items
        ):
            self._state.mark_unstored()
        self._is_stored = True

    def _store_in_background(self) -> None:
        self._is_stored = True
        if self._stores_response:
            self._services.responses.store_in_background(
                self._body, self._state.response, self._run.resolved.input_items
            )


def _encode(event: JsonObject) -> bytes:
    return encode(exact_json.dumps(event), event["type"])
