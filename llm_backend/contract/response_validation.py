"""Response validation against the OpenAPI document: whole bodies, and streams event by event."""

import logging
from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from llm_backend.contract.operations import Operation
from llm_backend.contract.validation import ContractViolation, Validators
from llm_backend.errors import Internal
from llm_backend.sse import (
    LONG_EVENT_BYTES,
    NDJSON,
    Decoder,
    EventPiece,
    LineDecoder,
    SimilarEvent,
    encode_error,
)

# A longer body or event is validated only under `enforce`: parsing it blocks all other requests,
# for a fifth of a second at 2,048 embeddings.
LOGGED_BYTES = LONG_EVENT_BYTES

_log = logging.getLogger(__name__)


class ResponseCheckMode(StrEnum):
    """Setting: whether responses that break the document are ignored, logged or refused."""

    OFF = "off"
    LOG = "log"
    ENFORCE = "enforce"


class ResponseValidator:
    """Validates the responses of handlers, as strictly as the setting says."""

    def __init__(self, validators: Validators, setting: ResponseCheckMode) -> None:
        self._validators = validators
        self._setting = setting

    def validate(self, operation: Operation, response: Response) -> Response:
        """Returns the response. Under `enforce`, raises `ContractViolation` if it is invalid and
        answered locally.

        Under `enforce`, a stream is cut at the first invalid event, with an error event in its
        place. Under `log`, a body or event over `LOGGED_BYTES` is not parsed. Responses with their
        own `__call__` (a relayed response, a file) are not checked.
        """
        if self._setting is ResponseCheckMode.OFF or _sends_itself(response):
            return response
        try:
            self._check(operation, response)
        except ContractViolation as violation:
            _log.error("answer_breaks_contract", extra={"reason": str(violation)})
            if self._setting is ResponseCheckMode.ENFORCE and operation.answered_by == "local":
                raise
        return response

    def _check(self, operation: Operation, response: Response) -> None:
        name, status = operation.operation_id, response.status_code
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        described = self._validators.media_types(name, status)
        if described is None:
            raise ContractViolation(f"{name}: status {status} is not described.")
        if described and not described & {media_type, "*/*"}:
            raise ContractViolation(f"{name}: {media_type!r} is not one of {sorted(described)}.")
        if isinstance(response, StreamingResponse):
            if media_type in ("text/event-stream", NDJSON):
                decoder = LineDecoder() if media_type == NDJSON else Decoder()
                response.body_iterator = self._events(operation, response.body_iterator, decoder)
            return
        is_long = len(response.body) > LOGGED_BYTES and self._setting is ResponseCheckMode.LOG
        if media_type == "application/json" and not is_long:
            self._check_json(name, status, bytes(response.body))

    def _check_json(self, operation_id: str, status: int, body: bytes) -> None:
        check = self._validators.response(operation_id, status, "application/json")
        if check is None:
            return
        try:
            check.check_response(orjson.loads(body), operation_id)
        except orjson.JSONDecodeError as error:
            raise ContractViolation(f"{operation_id}: the answer is not JSON: {error}") from error

    async def _events(
        self, operation: Operation, chunks: Any, decoder: Decoder | LineDecoder
    ) -> AsyncGenerator[bytes, None]:
        """Yields the same chunks, each once the events that it completes have been validated."""
        validate = self._validators.event_validator(operation.operation_id)
        try:
            async for chunk in chunks:
                if isinstance(chunk, SimilarEvent | EventPiece) or self._is_long(chunk, decoder):
                    yield chunk
                    continue
                data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
                try:
                    for event in decoder.feed(data):
                        validate(event.data.encode())
                except (ContractViolation, orjson.JSONDecodeError) as violation:
                    _log.error("event_breaks_contract", extra={"reason": str(violation)})
                    if self._setting is ResponseCheckMode.ENFORCE:
                        error = Internal("The server made an event that breaks its own contract.")
                        yield encode_error(operation.path, error)
                        return
                yield data
        finally:
            if hasattr(chunks, "aclose"):
                await chunks.aclose()

    def _is_long(self, chunk: Any, decoder: Decoder | LineDecoder) -> bool:
        """True for a chunk of whole events that is too long to be parsed under `log`."""
        is_logged = self._setting is ResponseCheckMode.LOG
        is_whole = decoder.is_between_events and chunk[-1:] == b"\n"
        return is_logged and len(chunk) > LOGGED_BYTES and is_whole


def _sends_itself(response: Response) -> bool:
    """True for a response whose bytes do not come from `body` or `body_iterator`."""
    if isinstance(response, StreamingResponse):
        return False
    return type(response).__call__ is not Response.__call__
