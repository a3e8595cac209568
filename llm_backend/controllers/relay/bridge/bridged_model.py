"""Bridged model: an upstream's model with the interface of a local one, chats to deltas."""

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Protocol, Self, cast

import orjson

from llm_backend import exact_json
from llm_backend.access import RequestMeter, text_bytes
from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.backends.upstream.config import WireProtocol
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_errors import read_error
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.controllers.relay.bridge.as_chat import PATH as CHAT_PATH
from llm_backend.controllers.relay.bridge.as_chat import ChunkReader, as_chat, as_streamed_chat
from llm_backend.controllers.relay.bridge.as_message import PATH as MESSAGE_PATH
from llm_backend.controllers.relay.bridge.as_message import as_message
from llm_backend.controllers.relay.bridge.as_response import PATH as RESPONSE_PATH
from llm_backend.controllers.relay.bridge.as_response import EventReader, as_response
from llm_backend.controllers.relay.bridge.message_events import MessageReader
from llm_backend.controllers.relay.relay import Destination, Exchanger
from llm_backend.errors import (
    ApiError,
    UnsupportedField,
    UpstreamError,
    UpstreamFailed,
)
from llm_backend.json_types import JsonMapping, JsonMappingT
from llm_backend.offload import offload
from llm_backend.sse import Decoder

log = logging.getLogger(__name__)


_HEADERS = (
    (b"content-type", b"application/json"),
    (b"accept", b"text/event-stream"),
    (b"accept-encoding", b"identity"),
)
# This server does not check them, nor arguments of strict functions: an answer of another form is
# passed on, too.
_ENFORCED_BY_UPSTREAM = frozenset(
    {"response_format", "verbosity", "prompt_cache_retention", "prompt_cache_options"}
)
_PATHS = {
    WireProtocol.CHAT: CHAT_PATH,
    WireProtocol.RESPONSES: RESPONSE_PATH,
    WireProtocol.MESSAGES: MESSAGE_PATH,
}
_LAST_BYTES_S = 0.1  # wait for the end of the body after `[DONE]`: it comes immediately or never


class BridgeReader(Protocol):
    """Parser of one answer's events."""

    is_ended: bool
    failure: ApiError | None  # inside the stream
    ends_by_done: bool  # True if `[DONE]` ends the answer although no event did

    @property
    def usage(self) -> Usage: ...
    def read(self, event: JsonMapping) -> Iterator[ChatDelta]: ...


_READERS: Mapping[WireProtocol, Callable[[], BridgeReader]] = {
    WireProtocol.CHAT: ChunkReader,
    WireProtocol.RESPONSES: EventReader,
    WireProtocol.MESSAGES: MessageReader,
}


class BridgedModel:
    """An upstream's model for one request: `body` is the client's, `wire` the upstream's protocol.
    In Anthropic's protocol, an answer without a limit has at most `message_tokens`."""

    def __init__(
        self,
        upstream: Exchanger,
        to: Destination,
        body: JsonMapping,
        wire: WireProtocol,
        operation: Sequence[str],
        *,
        fairness_key: str,
        meter: RequestMeter,
        message_tokens: int,
    ) -> None:
        self._message_tokens = message_tokens
        self._upstream = upstream
        self._to = to
        self._body = body
        self._wire = wire
        self._operation = operation
        self._fairness_key = fairness_key
        self.meter = meter
        self.vector_stores: Sequence[str] = ()
        self.accepts_images = False  # this server fetches none: the upstream gets their URLs

    def with_body(self, body: JsonMapping) -> Self:
        """Returns a copy for the body of the chat to which the client's body was translated."""
        other = copy.copy(self)
        other._body = body
        return other

    def with_defaults(self, body: JsonMappingT) -> JsonMappingT:
        """Returns the body without the fields that only the upstream enforces. It adds no defaults:
        the upstream has its own."""
        fields = {name: value for name, value in body.items() if name not in _ENFORCED_BY_UPSTREAM}
        return cast("JsonMappingT", fields)

    async def load_context_tokens(self) -> int:
        """Raises, because the upstream's context length is unknown."""
        raise _token_count_unsupported()

    async def count_prompt_tokens(self, request: Chat) -> int:
        """Raises, because the upstream's tokenizer is unknown."""
        raise _token_count_unsupported()

    async def chat(self, request: Chat) -> "BridgedAnswer":
        """Sends the chat and returns its answer once the upstream has begun to answer.

        Raises `UnsupportedField` for fields that cannot be translated, the upstream's refusal, and
        the errors of `Exchanger.exchange`.
        """
        body = await offload(lambda: exact_json.dumps(self._build_body(request)))
        relayed = await self._upstream.exchange(
            UpstreamRequest(
                method="POST",
                path=_PATHS[self._wire],
                query=b"",
                headers=_HEADERS,
                body=body,
                operation=self._operation,
                model=self._to.model,
                upstream=self._to.upstream,
                wire=self._wire,
                streams=True,
                has_fallback=self._to.has_fallback,
                is_at_most_once=self._to.is_at_most_once,
                fairness_key=self._fairness_key,
                on_abandoned=self.meter.mark_abandoned,
            )
        )
        if relayed.status != 200:
            raise await read_error(relayed)
        return BridgedAnswer(relayed, _READERS[self._wire], body, self.meter)

    def _build_body(self, request: Chat) -> Any:  # Any: a body of the wire protocol
        body: Any = self._body
        if self._wire is WireProtocol.MESSAGES:
            return as_message(body, request, self._to.model, max_tokens=self._message_tokens)
        if self._wire is WireProtocol.RESPONSES:
            return as_response(body, request, self._to.model)
        # Bodies of Messages and of Ollama's API are translated to bodies of chats before this.
        build = as_streamed_chat if "messages" in body else as_chat
        return build(body, request, self._to.model)


class BridgedAnswer:
    """Answer of an upstream; its deltas can be read once. Leaving its `async with` closes it and
    charges its usage: the upstream's numbers, or an estimate by the text so far."""

    def __init__(
        self,
        relayed: UpstreamAnswer,
        reader: Callable[[], BridgeReader],
        sent: bytes,
        meter: RequestMeter,
    ) -> None:
        self._relayed = relayed
        self._reader = reader()
        self._sent = sent
        self._meter = meter
        self._output_bytes = 0

    @property
    def usage(self) -> Usage:
        """Tokens, once the upstream has reported them."""
        return self._reader.usage

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._relayed.aclose()
        usage = self.usage
        if usage.prompt_tokens or usage.completion_tokens:
            self._meter.count_answer(usage)
        else:
            self._meter.count_estimate(
                input_bytes=text_bytes(self._sent), output_bytes=self._output_bytes
            )

    async def chat_deltas(self, request: Chat) -> AsyncGenerator[ChatDelta, None]:
        """Yields the deltas. Raises `ApiError` if the stream breaks off or contains an error."""
        async with aclosing(self._events()) as events:
            async for event in events:
                # Some upstreams send `[DONE]` after the end of a response or a message, too.
                if event == "[DONE]" and (self._reader.is_ended or self._reader.ends_by_done):
                    await self._drain()
                    return
                for delta in self._read(event):
                    yield delta
        if not self._reader.is_ended:
            raise self._report_failure("The upstream broke off in the middle of its answer.")

    async def _events(self) -> AsyncGenerator[str, None]:
        decoder = Decoder()
        async for piece in self._relayed.body:
            try:
                for event in decoder.feed(piece):
                    yield event.data
            except UpstreamFailed as error:
                raise self._report_failure(error.message) from error

    def _read(self, data: str) -> Sequence[ChatDelta]:
        try:
            deltas = list(self._reader.read(_parse_event(data)))
        except UpstreamFailed as error:
            raise self._report_failure(error.message) from error
        if (failure := self._reader.failure) is not None:
            fields = {"upstream": self._relayed.upstream, "code": failure.code}
            log.warning("upstream_stream_error", extra=fields)
            self._reader.failure = None
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame, in a cycle
        self._output_bytes += sum(map(_text_bytes, deltas))
        return deltas

    def _report_failure(self, message: str) -> UpstreamFailed:
        error = UpstreamFailed(message)
        self._relayed.report_invalid(error)
        return error

    async def _drain(self) -> None:
        """Reads the end of the body, so that the connection can be reused."""
        with suppress(TimeoutError, UpstreamError):
            async with asyncio.timeout(_LAST_BYTES_S):
                async for _ in self._relayed.body:
                    pass


def _text_bytes(delta: ChatDelta) -> int:
    texts = [
        delta.content,
        delta.refusal,
        delta.reasoning,
        *(call.arguments for call in delta.tool_calls),
    ]
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


def _parse_event(data: str) -> JsonMapping:
    try:
        event = exact_json.loads(data)
    except orjson.JSONDecodeError as error:
        raise UpstreamFailed("The upstream sent an event that is not JSON.") from error
    if not isinstance(event, dict):
        raise UpstreamFailed("The upstream sent an event that is not an object.")
    return event


def _token_count_unsupported() -> UnsupportedField:
    return UnsupportedField(
        "`truncation` needs a model whose tokens can be counted; leave it out.", param="truncation"
    )
