"""Store of batches; jobs do their work."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial

from llm_backend.json_types import JsonMapping
from llm_backend.store.batches import batch_rows
from llm_backend.store.batches.stored_batch import (
    BATCH_LINES,
    BatchEnd,
    BatchStatus,
    LineResult,
    Lines,
    StoredBatch,
)
from llm_backend.store.database.database import Database
from llm_backend.store.errors import Missing
from llm_backend.store.jobs import Job, Jobs, job_rows
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.objects import Content
from llm_backend.store.text_checks import check_metadata, check_texts
from llm_backend.store.webhooks.stored_endpoint import DeliveryLimit

_PAGE_LINES = 20  # answers in memory while they are written to a file


class BatchStore:
    """The batches of a database; `jobs` do their work."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        *,
        deliveries: DeliveryLimit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._deliveries = deliveries
        self._clock = clock

    async def add(self, batch: StoredBatch) -> None:
        """Stores a batch and its job; durable on return. Raises `Missing` for a missing input file,
        and `Unstorable`."""
        check_metadata(batch.metadata or {})
        check_texts(batch.id, batch.input_file_id)
        await self._database.write(batch_rows.add, batch=batch, now=self._clock())
        self._jobs.wake()

    async def get(self, id: str) -> StoredBatch:
        """Returns the batch with this id, with its counts so far. Raises `Missing`."""
        return await self._database.read(batch_rows.get, id=id)

    async def list(
        self, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[StoredBatch]:
        """Returns a page of the batches, by time of creation. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(batch_rows.find, request=request)

    async def cancel(self, id: str) -> StoredBatch:
        """Cancels the batch: no more lines start, and running ones finish. Raises `Missing`,
        `BatchEnded`."""
        stopped = await self._database.write(batch_rows.cancel, id=id, now=self._clock())
        self._jobs.wake()
        return stopped

    async def expire(self) -> None:
        """Expires batches: no more of their lines start."""
        await self._database.write(batch_rows.expire, now=self._clock())
        self._jobs.wake()

    async def find_work(self, id: str) -> tuple[StoredBatch, Content] | None:
        """Returns the batch and the content of its input; None if the batch was deleted. Raises
        `Missing` for a missing input file."""
        try:
            return await self._database.read(batch_rows.work, id=id)
        except Missing as missing:
            if missing.id == id:
                return None
            raise

    async def begin(
        self, job: Job, chunks: Sequence[Lines], *, total: int, model: str | None
    ) -> bool:
        """Starts the batch, whose input is valid, by adding the jobs of its lines. Returns False if
        it was cancelled meanwhile. Raises `LeaseLost`."""
        has_begun = await self._database.write(
            batch_rows.begin, job=job, chunks=chunks, total=total, model=model, now=self._clock()
        )
        self._jobs.wake()
        return has_begun

    async def fail(self, job: Job, errors: Sequence[JsonMapping]) -> None:
        """Ends the batch as failed, for an invalid input or an error of the server, and its job.
        Raises `LeaseLost`, `BatchEnded`."""
        await self._end(partial(batch_rows.fail, job=job, errors=errors))

    async def find_answered_lines(self, id: str, first: int, last: int) -> set[int]:
        """Returns the numbers of the lines from `first` to `last` that have an answer. Raises
        `Missing`."""
        return await self._database.read(batch_rows.numbers, id=id, first=first, last=last)

    async def record(self, id: str, *results: LineResult) -> BatchStatus:
        """Stores answers, durable on return; returns the batch's status. Raises `Missing`."""
        return await self._database.insert(batch_rows.record, id=id, results=results)

    async def record_progress(self, job: Job) -> None:
        """Resets the job's attempts, because it made progress. Raises `LeaseLost`."""
        await self._database.write(job_rows.reset_attempts, job=job)

    async def finish_lines(self, job: Job, errors: Sequence[JsonMapping] = ()) -> None:
        """Finishes the job of some lines; the batch fails in the end if there are `errors`. Raises
        `LeaseLost`."""
        await self._database.write(
            batch_rows.finish_lines, job=job, errors=errors, now=self._clock()
        )
        self._jobs.wake()

    async def postpone(self, id: str, delay_s: float) -> None:
        """Delays the jobs of lines that have not started."""
        until = self._clock() + delay_s
        await self._database.write(
            job_rows.postpone_unleased, kind=BATCH_LINES, subject=id, until=until
        )

    async def lines(self, id: str, *, is_error: bool) -> AsyncIterator[tuple[int, str]]:
        """Yields the numbers and texts of the batch's answers, or of its errors, in order."""
        after = 0
        while True:
            page = await self._database.read(
                batch_rows.line_page, id=id, is_error=is_error, after=after, limit=_PAGE_LINES
            )
            for line in page:
                yield line
            if len(page) < _PAGE_LINES:
                return
            after = page[-1][0]

    async def end(self, job: Job, ended: BatchEnd) -> None:
        """Ends the batch. Raises `LeaseLost`, `BatchEnded`, `BlobGone`."""
        await self._end(partial(batch_rows.end, job=job, ended=ended))

    async def delete_lines(self, id: str) -> None:
        """Deletes the answers of a batch that has ended, a bounded number in each transaction."""
        while await self._database.write(batch_rows.delete_lines, id=id):
            pass

    async def _end(self, end: Callable[..., int]) -> None:
        limit = self._deliveries.waiting
        dropped = await self._database.write(end, now=self._clock(), delivery_limit=limit)
        self._deliveries.on_dropped(dropped)
        self._jobs.wake()  # for webhooks
