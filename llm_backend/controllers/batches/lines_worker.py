"""Lines worker: runs lines of batches with bounded concurrency, at batch priority."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

import orjson

from llm_backend.access import Caller
from llm_backend.backends.local.task_priority import at_batch_priority
from llm_backend.contract.body import json_limits
from llm_backend.controllers.batches.batch_input import (
    INPUT_MISSING,
    InputLine,
    LineSplitter,
    RawLine,
    read_line,
)
from llm_backend.controllers.batches.batch_output import answer_line, error_line
from llm_backend.controllers.batches.line_chunk import LineChunk
from llm_backend.controllers.batches.line_sender import LineAnswer, LineSender
from llm_backend.controllers.internal_requests import json_body
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, InvalidRequest, UnsupportedField
from llm_backend.offload import REQUEST_BYTES, offload
from llm_backend.settings import Settings
from llm_backend.store import (
    BatchStore,
    FileStore,
    Job,
    LineResult,
    Lines,
    ObjectMissing,
)
from llm_backend.store.objects import Content

CHUNK_CONCURRENCY = 4  # several, so that the last lines of a chunk leave no concurrency unused
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})  # overload, or a restart
# Attempts of a line with a transient error, before the batch is postponed and the job attempted
# again: `line_chunk.ATTEMPTS_PER_CHUNK`.
ATTEMPTS_PER_LINE = 4
RETRY_S = 1.0  # doubled with every try
_UNSUPPORTED = ("stream", "background")  # meaningless without a client

log = logging.getLogger(__name__)


_AnswerLine: TypeAlias = Callable[[LineChunk, int, InputLine], Awaitable[LineResult | None]]
"""Returns the result of a line; None if it is to be run again."""

FindCallerOfKey: TypeAlias = Callable[[str | None], Awaitable[Caller]]
"""Returns the caller of a key id. Raises `ApiError`: `ServiceUnavailable` if it may be known
later."""


class LinesWorker:
    """Worker of `BATCH_LINES` jobs. A line keeps its permit until its answer is stored."""

    def __init__(
        self,
        batches: BatchStore,
        files: FileStore,
        sender: LineSender,
        find_caller_of: FindCallerOfKey,
        settings: Settings,
    ) -> None:
        self._batches = batches
        self._files = files
        self._sender = sender
        self._find_caller_of = find_caller_of
        self._body_limits = json_limits(settings)
        self._permits = asyncio.Semaphore(settings.batch_concurrency)

    async def work(self, job: Job) -> None:
        """Runs each line without an answer, until the batch is over."""
        await self._each(job, self._answer_line)

    async def give_up(self, job: Job) -> None:
        """Fails each line without an answer."""
        await self._each(job, _give_up_line)

    async def _each(self, job: Job, answer: _AnswerLine) -> None:
        found = await self._batches.find_work(job.subject)
        if found is None:
            return
        batch, content = found
        lines = Lines(**job.details)
        chunk = LineChunk(self._batches, job, batch)
        answered_lines = await self._batches.find_answered_lines(
            batch.id, lines.first_line, lines.last_line
        )
        try:
            async with (
                asyncio.TaskGroup() as group,
                aclosing(self._lines(lines, content)) as raw_lines,
            ):
                async for line in raw_lines:
                    if line.number in answered_lines:
                        continue
                    await self._permits.acquire()
                    task = group.create_task(self._line(chunk, line, answer))
                    task.add_done_callback(lambda _: self._permits.release())
                    if chunk.is_over:
                        break
        except ExceptionGroup as failed:  # the first failure cancelled the other tasks
            error = failed.exceptions[0]
            if not isinstance(error, ObjectMissing):
                raise error from None
            log.error("object_missing", extra={"batch": batch.id, "reason": str(error)})
            await self._batches.finish_lines(job, errors=[INPUT_MISSING])
            return
        await chunk.finish()

    async def _line(self, chunk: LineChunk, line: RawLine, answer: _AnswerLine) -> None:
        if chunk.is_over:
            return
        assert line.text is not None, "the input was read before"
        REQUEST_BYTES.set(len(line.text))  # in the task's own context
        read = await offload(read_line, line.text, chunk.endpoint, self._body_limits)
        result = await answer(chunk, line.number, read)
        if result is not None:
            await chunk.store(result)

    async def _answer_line(
        self, chunk: LineChunk, number: int, line: InputLine
    ) -> LineResult | None:
        for field in _UNSUPPORTED:
            if line.body.get(field):
                message = f"`{field}` is not for requests of a batch."
                refused = _error_answer(UnsupportedField(message, param=field))
                return answer_line(number, line.custom_id, refused)
        try:
            body = await offload(json_body, line.body)
        except InvalidRequest as error:
            return answer_line(number, line.custom_id, _error_answer(error))
        response = await self._send_with_retries(chunk, body)
        if response is None:
            return None
        REQUEST_BYTES.set(len(response.body))
        return await offload(answer_line, number, line.custom_id, response)

    async def _send_with_retries(self, chunk: LineChunk, body: bytes) -> LineAnswer | None:
        """Runs a line with retries; returns None if it cannot be answered now."""
        for attempt in range(ATTEMPTS_PER_LINE):
            if attempt:
                await asyncio.sleep(RETRY_S * 2 ** (attempt - 1))
            response = await self._send(chunk, body)
            if not _is_transient(response) or chunk.is_last_attempt:
                return response
            if chunk.is_over:
                return None
        chunk.mark_model_unavailable()
        return None

    async def _send(self, chunk: LineChunk, body: bytes) -> LineAnswer:
        try:
            caller = await self._find_caller_of(chunk.key_id)
        except ApiError as error:  # the key has been revoked since, or cannot be checked now
            return _error_answer(error)
        with at_batch_priority():
            return await self._sender.post(chunk.endpoint, body, caller)

    async def _lines(self, lines: Lines, content: Content) -> AsyncGenerator[RawLine, None]:
        size_bytes = lines.end - lines.start  # the limit was checked when the input was read
        splitter = LineSplitter(size_bytes, start=lines.start, first_line=lines.first_line)
        async with aclosing(self._files.blobs.read(content, lines.start, lines.end)) as pieces:
            async for piece in pieces:
                for line in splitter.feed(piece):
                    yield line
        for line in splitter.finish():
            yield line


def _is_transient(response: LineAnswer) -> bool:
    """True if a retry may help."""
    return response.status in TRANSIENT_STATUSES and b'"insufficient_quota"' not in response.body


async def _give_up_line(_chunk: LineChunk, number: int, line: InputLine) -> LineResult:
    message = "The server failed at this request repeatedly; its log has the reason."
    return error_line(number, line.custom_id, "server_error", message)


def _error_answer(error: ApiError) -> LineAnswer:
    body = orjson.dumps(error_body(error))
    return LineAnswer(status=error.status, request_id="", body=body)
