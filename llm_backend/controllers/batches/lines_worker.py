"""Has lines of batches answered, some at a time, at a priority that keeps nobody waiting."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from itertools import count
from typing import TypeAlias

import orjson

from llm_backend.access import Caller
from llm_backend.backends.urgency import at_batch_priority
from llm_backend.controllers.batches.dispatch import Answered, Dispatch
from llm_backend.controllers.batches.input import (
    InputLine,
    LineSplitter,
    RawLine,
    read_line,
)
from llm_backend.controllers.batches.output import answer_line, error_line
from llm_backend.errors import ApiError, UnsupportedField, error_body
from llm_backend.settings import Settings
from llm_backend.store import (
    Batches,
    BatchStatus,
    Files,
    Job,
    LineResult,
    Lines,
    Missing,
    StoredBatch,
    StoreUnavailable,
)
from llm_backend.store.objects import Content

__all__ = ["LinesWorker"]

log = logging.getLogger(__name__)

CHUNKS_AT_ONCE = 4  # so that the last lines of one do not leave places empty
PASSING = frozenset({429, 502, 503, 504})  # load, or something that starts again
TRIES = 8  # of a line that meets these: about two minutes
RETRY_S, RETRY_LIMIT_S = 1.0, 60.0  # doubled with every try
_UNHONOURED = ("stream", "background")  # what makes no sense where nobody listens


CallerOf: TypeAlias = Callable[[str | None], Caller]
"""Key id in, whose it is out. Raises `ApiError`."""


class LinesWorker:
    """Does jobs of `BATCH_LINES`: an answer is kept before its place is another line's."""

    def __init__(
        self,
        batches: Batches,
        files: Files,
        dispatch: Dispatch,
        caller_of: CallerOf,
        settings: Settings,
    ) -> None:
        self._batches = batches
        self._files = files
        self._dispatch = dispatch
        self._caller_of = caller_of
        self._limit_bytes = settings.batch_line_limit_bytes
        self._turns = asyncio.Semaphore(settings.batch_concurrency)

    async def work(self, job: Job) -> None:
        """Each line that has no answer is asked; none once the batch is over."""
        await self._each(job, self._asked)

    async def give_up(self, job: Job) -> None:
        """Each line that has no answer has failed."""
        await self._each(job, _given_up)

    async def _each(self, job: Job, answer: "_Answer") -> None:
        try:
            batch, content = await self._batches.work(job.subject)
        except Missing as missing:
            if missing.id == job.subject:  # it has been forgotten
                return
            raise
        lines = Lines(**job.details)
        chunk = _Chunk(self._batches, job, batch)
        done = await self._batches.answered(batch.id, lines.first_line, lines.last_line)
        try:
            async with asyncio.TaskGroup() as group, aclosing(self._lines(lines, content)) as found:
                async for line in found:
                    if line.number in done:
                        continue
                    await self._turns.acquire()
                    task = group.create_task(self._line(chunk, line, answer))
                    task.add_done_callback(lambda _: self._turns.release())
                    if chunk.is_over:
                        break
        except ExceptionGroup as failed:  # the others were cancelled at the first failure
            raise failed.exceptions[0] from None
        await self._batches.finish_lines(job)

    async def _line(self, chunk: "_Chunk", line: RawLine, answer: "_Answer") -> None:
        if chunk.is_over:
            return
        assert line.text is not None, "the input was read before"
        await chunk.keep(await answer(chunk, line.number, read_line(line.text, chunk.endpoint)))

    async def _asked(self, chunk: "_Chunk", number: int, line: InputLine) -> LineResult:
        for field in _UNHONOURED:
            if line.body.get(field):
                message = f"`{field}` is not for requests of a batch."
                refused = _refused(UnsupportedField(message, param=field))
                return answer_line(number, line.custom_id, refused)
        body = orjson.dumps(line.body)
        for attempt in range(TRIES):
            answered = await self._answered(chunk, body)
            if not _passes(answered) or chunk.is_over:
                break
            await asyncio.sleep(min(RETRY_S * 2**attempt, RETRY_LIMIT_S))
        return answer_line(number, line.custom_id, answered)

    async def _answered(self, chunk: "_Chunk", body: bytes) -> Answered:
        try:
            caller = self._caller_of(chunk.owner)
        except ApiError as error:  # the key has been revoked since
            return _refused(error)
        with at_batch_priority():
            return await self._dispatch.post(chunk.endpoint, body, caller)

    async def _lines(self, lines: Lines, content: Content) -> AsyncGenerator[RawLine, None]:
        splitter = LineSplitter(self._limit_bytes, start=lines.start, first_line=lines.first_line)
        async for piece in self._files.blobs.read(content, lines.start, lines.end):
            for line in splitter.feed(piece):
                yield line
        for line in splitter.finish():
            yield line


class _Chunk:
    """Some lines of a batch being answered: keeps answers, and sees when to stop."""

    def __init__(self, batches: Batches, job: Job, batch: StoredBatch) -> None:
        self.endpoint = batch.endpoint
        self.owner = batch.owner
        self._batches = batches
        self._job = job
        self._batch = batch
        self._status = batch.status
        self._has_got_on = False

    @property
    def is_over(self) -> bool:
        """Whether no more lines are to be asked."""
        return self._status is not BatchStatus.IN_PROGRESS or time.time() >= self._batch.expires_at

    async def keep(self, result: LineResult) -> None:
        """Durable on return, however long the database is away: an answer has been paid for."""
        for attempt in count():
            try:
                self._status = await self._batches.record(self._batch.id, result)
                break
            except StoreUnavailable as error:
                log.warning("line_not_kept_yet", extra={"reason": str(error)})
                await asyncio.sleep(min(RETRY_S * 2**attempt, RETRY_LIMIT_S))
        if not self._has_got_on:
            self._has_got_on = True
            await self._batches.get_on(self._job)


_Answer: TypeAlias = Callable[[_Chunk, int, InputLine], Awaitable[LineResult]]


def _passes(answered: Answered) -> bool:
    """Whether asking again may help."""
    return answered.status in PASSING and b'"insufficient_quota"' not in answered.body


async def _given_up(_chunk: _Chunk, number: int, line: InputLine) -> LineResult:
    message = "The server failed at this request again and again; its log says why."
    return error_line(number, line.custom_id, "server_error", message)


def _refused(error: ApiError) -> Answered:
    body = orjson.dumps(error_body(error))
    return Answered(status=error.status, request_id="", body=body)
