"""Batch worker: validates a batch's input, and writes its output files at the end."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress

from llm_backend.contract.body import json_limits
from llm_backend.controllers.batches.batch_input import (
    INPUT_MISSING,
    InputCheck,
    LineSplitter,
    RawLine,
    read_line,
)
from llm_backend.controllers.batches.batch_output import error_line
from llm_backend.controllers.files.operations import new_file_id
from llm_backend.json_types import JsonMapping
from llm_backend.settings import Settings
from llm_backend.store import (
    BatchEnd,
    BatchEnded,
    BatchStatus,
    BatchStore,
    FileStore,
    Job,
    LineResult,
    Missing,
    ObjectMissing,
    StoredBatch,
    StoredFile,
)
from llm_backend.store.objects import Content, size_of

_END_ERRORS = {
    BatchStatus.EXPIRED: (
        "batch_expired",
        "The batch's time was over before this request was made.",
    ),
    BatchStatus.CANCELLED: (
        "batch_cancelled",
        "The batch was cancelled before this request was made.",
    ),
}
_LINES_PER_QUERY = 500

log = logging.getLogger(__name__)


class BatchWorker:
    """Worker of `BATCH` jobs. The status of the batch decides what a job does."""

    def __init__(self, batches: BatchStore, files: FileStore, settings: Settings) -> None:
        self._batches = batches
        self._files = files
        self._settings = settings
        self._body_limits = json_limits(settings)

    async def work(self, job: Job) -> None:
        """Advances a batch from `validating` to `in_progress` or `failed`, or writes its output."""
        found = await self._batches.find_work(job.subject)
        if found is None:
            return
        batch, content = found
        if batch.status is BatchStatus.VALIDATING:
            if await self._begin(job, batch, content):
                return  # when all lines are answered, another job of this kind writes the output
            batch = await self._batches.get(batch.id)
        if batch.status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING):
            with suppress(BatchEnded):  # by another job
                await self._write(job, batch, content)
            batch = await self._batches.get(batch.id)
        if batch.status.is_end:
            await self._batches.delete_lines(batch.id)

    async def give_up(self, job: Job) -> None:
        """Fails a batch whose input cannot be read or whose output cannot be written."""
        try:
            batch = await self._batches.get(job.subject)
        except Missing:
            return
        error = {
            "code": "server_error",
            "message": "The server failed to process this batch several times; its log says why.",
            "param": None,
            "line": None,
        }
        with suppress(BatchEnded):
            await self._batches.fail(job, [error])
        await self._batches.delete_lines(batch.id)

    async def _begin(self, job: Job, batch: StoredBatch, content: Content) -> bool:
        """Reads the input and starts the batch. Returns False if the batch has failed, because its
        input is invalid, or was cancelled."""
        check = InputCheck(
            batch.endpoint,
            lines_limit=self._settings.batch_lines_limit,
            line_limit_bytes=self._settings.batch_line_limit_bytes,
            body_limits=self._body_limits,
        )
        errors: Sequence[JsonMapping] = check.errors
        try:
            await self._check(check, content)
        except ObjectMissing as error:
            log.error("object_missing", extra={"batch": batch.id, "reason": str(error)})
            errors = [INPUT_MISSING]
        if errors:
            await self._batches.fail(job, errors)
            return False
        return await self._batches.begin(job, check.chunks, total=check.total, model=check.model)

    async def _check(self, check: InputCheck, content: Content) -> None:
        async with aclosing(self._pieces(content)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(check.feed, piece)
                if check.is_hopeless:
                    break
            else:
                check.finish()

    async def _write(self, job: Job, batch: StoredBatch, content: Content) -> None:
        unanswered = batch.total - batch.completed - batch.failed
        status = BatchStatus.COMPLETED
        if batch.status is BatchStatus.CANCELLING:
            status = BatchStatus.CANCELLED
        elif batch.errors:  # lines could not be read any more
            status = BatchStatus.FAILED
        elif unanswered:
            status = BatchStatus.EXPIRED
        async with AsyncExitStack() as stack:
            output = error = None
            if batch.completed:
                lines = self._answers(batch, is_error=False)
                output = await self._write_file(stack, batch, "output", lines)
            if batch.failed or (unanswered and status in _END_ERRORS):
                lines = self._errors(batch, content, status)
                error = await self._write_file(stack, batch, "error", lines)
            ended = BatchEnd(
                status=status,
                completed=batch.completed,
                failed=batch.failed,
                output=output,
                error=error,
            )
            await self._batches.end(job, ended)

    async def _write_file(
        self, stack: AsyncExitStack, batch: StoredBatch, kind: str, lines: AsyncIterator[bytes]
    ) -> StoredFile:
        """Writes the lines to a file, whose blob is deleted if `stack` exits with an exception."""
        blob = await stack.enter_async_context(self._files.blobs.writing(lines))
        created_at = int(time.time())
        lifetime_s = batch.output_lifetime_s
        return StoredFile(
            id=new_file_id(),
            created_at=created_at,
            purpose="batch_output",
            filename=f"{batch.id}_{kind}.jsonl",
            media_type="application/jsonl",
            content=(blob,),
            expires_at=None if lifetime_s is None else created_at + lifetime_s,
            owner=batch.owner,
        )

    async def _answers(self, batch: StoredBatch, *, is_error: bool) -> AsyncIterator[bytes]:
        async for _, text in self._batches.lines(batch.id, is_error=is_error):
            yield text.encode() + b"\n"

    async def _errors(
        self, batch: StoredBatch, content: Content, status: BatchStatus
    ) -> AsyncIterator[bytes]:
        """Yields the failed lines, then the lines whose requests were not made before the end."""
        async for line in self._answers(batch, is_error=True):
            yield line
        if status not in _END_ERRORS:
            return
        try:
            async for result in self._unanswered_lines(batch, content, *_END_ERRORS[status]):
                yield result.text.encode() + b"\n"
        except ObjectMissing as error:  # so their `custom_id`s are unknown
            log.error("object_missing", extra={"batch": batch.id, "reason": str(error)})

    async def _unanswered_lines(
        self, batch: StoredBatch, content: Content, code: str, message: str
    ) -> AsyncIterator[LineResult]:
        custom_ids: dict[int, str] = {}
        async for number, custom_id in self._custom_ids(batch, content):
            custom_ids[number] = custom_id
            if len(custom_ids) == _LINES_PER_QUERY:
                async for result in self._select_unanswered(batch, custom_ids, code, message):
                    yield result
                custom_ids.clear()
        async for result in self._select_unanswered(batch, custom_ids, code, message):
            yield result

    async def _select_unanswered(
        self, batch: StoredBatch, custom_ids: dict[int, str], code: str, message: str
    ) -> AsyncIterator[LineResult]:
        if not custom_ids:
            return
        answered = await self._batches.find_answered_lines(
            batch.id, min(custom_ids), max(custom_ids)
        )
        for number, custom_id in custom_ids.items():
            if number not in answered:
                yield error_line(number, custom_id, code, message)

    async def _custom_ids(
        self, batch: StoredBatch, content: Content
    ) -> AsyncIterator[tuple[int, str]]:
        splitter = LineSplitter(size_of(content))  # the limit was checked when the input was read

        def custom_ids_of(lines: Iterator[RawLine]) -> list[tuple[int, str]]:
            return [
                (line.number, read_line(line.text, batch.endpoint, self._body_limits).custom_id)
                for line in lines
                if line.text is not None
            ]

        async for piece in self._pieces(content):
            for one in await asyncio.to_thread(custom_ids_of, splitter.feed(piece)):
                yield one
        for one in custom_ids_of(splitter.finish()):
            yield one

    def _pieces(self, content: Content) -> AsyncGenerator[bytes, None]:
        return self._files.blobs.read(content, 0, size_of(content))
