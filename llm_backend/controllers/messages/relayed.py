"""Relay of `POST /messages` to an upstream with this operation: the answer is passed on unchanged,
observed, and stored as a chat."""

import logging
import time
import uuid
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import orjson
from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.backends.base import Usage
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.chat.translated import chat_request_of
from llm_backend.controllers.messages.chat_body import chat_body_of
from llm_backend.controllers.relay.answer_observer import OBSERVED_BYTES, AnswerObserver
from llm_backend.controllers.relay.bridge.message_events import MessageReader
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.chat_events import ChatTranscript
from llm_backend.controllers.rendering.chat_fold import fold
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.chat_recorder import ParsedAnswer
from llm_backend.errors import InvalidRequest, UpstreamFailed
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import offload
from llm_backend.sse import Decoder

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

log = logging.getLogger(__name__)


async def relay_message(
    services: Services, request: ApiRequest, *, to: Destination | None = None
) -> Response:
    """Relays `POST /messages`, counts the usage of the answer, and stores it as a chat before or
    after its last bytes are sent."""
    chat_body = await offload(_stored_body, request)
    observer = MessageObserver()

    def finish() -> Awaitable[None] | None:
        observer.close()
        if observer.usage.prompt_tokens or observer.usage.completion_tokens:
            request.meter.count_answer(observer.usage)
        if chat_body is None or not services.chat_recorder.should_store_relayed(chat_body):
            return None
        if observer.is_overlong or not observer.has_answer:
            log.warning("message_not_stored", extra={"request_id": request.request_id})
            return None
        completion = observer.completion(chat_body["model"])
        return services.chat_recorder.store_relayed(
            chat_body,
            ParsedAnswer(parsed=completion, is_complete=observer.is_complete),
            size_bytes=len(request.raw_body) + observer.fed_bytes,
        )

    return await relay(services, request, to=to, observe=observer.feed, finish=finish)


def _stored_body(request: ApiRequest) -> "api.CreateChatCompletionRequest | None":
    """Returns the request as the body of a chat, for storage; None if it has blocks or tools that
    chats do not have."""
    try:
        body: api.CreateChatCompletionRequest = chat_request_of(
            request, chat_body_of(request.body)
        ).body
    except InvalidRequest as error:
        fields = {"request_id": request.request_id, "reason": error.param}
        log.info("message_not_stored", extra=fields)
        return None
    return body


class MessageObserver(AnswerObserver):
    """Parses a relayed message to the deltas of a chat."""

    def __init__(self, limit_bytes: int = OBSERVED_BYTES) -> None:
        super().__init__(limit_bytes)
        self._is_broken = False
        self._events = Decoder(limit_bytes)
        self._reader = MessageReader(skips_unknown=True)
        self._transcript = ChatTranscript()
        self.has_answer = False

    @property
    def usage(self) -> Usage:
        """Tokens, as far as they were reported; the output of a broken answer is estimated."""
        return self._reader.usage

    @property
    def is_complete(self) -> bool:
        """True if the whole answer was parsed and it is not an error."""
        if self.is_overlong or self._is_broken:
            return False
        return self._reader.is_ended and self._reader.failure is None

    def close(self) -> None:
        """Parses an answer that was not streamed."""
        if body := self.body:
            self._read(body, is_whole=True)

    def completion(self, model: str) -> JsonObject:
        """Returns the answer so far as the completion of a chat."""
        head = chunks.ChunkHead(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            kind="chat.completion.chunk",
            created_at=int(time.time()),
            model=model,
        )
        deltas = [chunks.chat_chunk(head, delta) for delta in self._transcript.deltas()]
        completion = fold([chunks.role_chunk(head, 0), *deltas])
        return {**completion, "usage": chunks.usage_object(self.usage)}

    def _feed_events(self, chunk: bytes) -> None:
        try:
            for event in self._events.feed(chunk):
                self._read(event.data.encode(), is_whole=False)
        except UpstreamFailed:
            self.is_overlong = True

    def _read(self, data: bytes, *, is_whole: bool) -> None:
        try:
            event: JsonMapping = exact_json.loads(data)
            if not isinstance(event, dict):
                raise UpstreamFailed("The upstream sent an event that is not an object.")
            reader = self._reader
            if self._is_broken:
                reader.read_usage(event)  # of the events after a broken one, only usage is read
                return
            for delta in reader.read_whole(event) if is_whole else reader.read(event):
                self.has_answer = True
                self._transcript.add(delta)
        except (orjson.JSONDecodeError, UpstreamFailed):
            self._is_broken = True  # the client gets these bytes all the same
