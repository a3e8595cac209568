"""Answers held against the document: whole bodies at once, streams event by event."""

import logging
from collections.abc import AsyncGenerator
from enum import StrEnum
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from llm_backend.contract.operations import Operation
from llm_backend.contract.validation import ContractViolation, Validators
from llm_backend.errors import Internal, error_body
from llm_backend.sse import Alike, Decoder, encode

__all__ = ["AnswerChecks", "Answers"]

LOGGED_BYTES = 1 << 20  # a longer body is checked only where checks are enforced: to parse it again
# keeps everyone waiting, a fifth of a second for 2,048 embeddings

_log = logging.getLogger(__name__)


class AnswerChecks(StrEnum):
    """What happens to answers of ours that break the document."""

    OFF = "off"
    LOG = "log"
    ENFORCE = "enforce"


class Answers:
    """Checks what handlers return, as strictly as the setting says."""

    def __init__(self, validators: Validators, setting: AnswerChecks) -> None:
        self._validators = validators
        self._setting = setting

    def checked(self, operation: Operation, response: Response) -> Response:
        """The answer; enforcing, raises `ContractViolation` for one that breaks the document.
        Logging, the body of a very long answer is not looked into.

        A stream is cut at the event that breaks it, with an error event in its place. What sends
        itself (an upstream's answer, a file) is not looked into.
        """
        if self._setting is AnswerChecks.OFF or _sends_itself(response):
            return response
        try:
            self._check(operation, response)
        except ContractViolation as violation:
            _log.error("answer_breaks_contract", extra={"reason": str(violation)})
            if self._setting is AnswerChecks.ENFORCE and operation.answered == "local":
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
            if media_type == "text/event-stream":
                response.body_iterator = self._events(operation, response.body_iterator)
            return
        is_long = len(response.body) > LOGGED_BYTES and self._setting is AnswerChecks.LOG
        if media_type == "application/json" and not is_long:
            self._check_json(name, status, bytes(response.body))

    def _check_json(self, operation_id: str, status: int, body: bytes) -> None:
        check = self._validators.response(operation_id, status, "application/json")
        if check is None:
            return
        try:
            check.answer(orjson.loads(body), operation_id)
        except orjson.JSONDecodeError as error:
            raise ContractViolation(f"{operation_id}: the answer is not JSON: {error}") from error

    async def _events(self, operation: Operation, chunks: Any) -> AsyncGenerator[bytes, None]:
        """The same chunks, each passed on when every event that it completes is fine."""
        validate = self._validators.event_validator(operation.operation_id)
        decoder = Decoder()
        try:
            async for chunk in chunks:
                if isinstance(chunk, Alike):
                    yield chunk
                    continue
                data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
                try:
                    for event in decoder.feed(data):
                        validate(event.data.encode())
                except (ContractViolation, orjson.JSONDecodeError) as violation:
                    _log.error("event_breaks_contract", extra={"reason": str(violation)})
                    if self._setting is AnswerChecks.ENFORCE:
                        error = Internal("The server made an event that breaks its own contract.")
                        yield encode(orjson.dumps(error_body(error)))
                        return
                yield data
        finally:
            if hasattr(chunks, "aclose"):
                await chunks.aclose()


def _sends_itself(response: Response) -> bool:
    own = type(response).__call__
    return own is not Response.__call__ and own is not StreamingResponse.__call__
