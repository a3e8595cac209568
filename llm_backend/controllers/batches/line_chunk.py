"""Chunk of batch lines in progress: stores answers, and detects when to stop."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from llm_backend.backoff import backoff_delay_s
from llm_backend.store import (
    BatchStatus,
    BatchStore,
    Job,
    LineResult,
    RetryLater,
    StoredBatch,
    StoreUnavailable,
)

# Attempts of the job while its model is unavailable. Together they pause for 29 minutes, beside the
# time of the requests. Within each attempt `lines_worker.ATTEMPTS_PER_LINE` are made of each line.
ATTEMPTS_PER_CHUNK = 27
POSTPONE_S = 60.0  # delay of a postponed batch, so that other batches run
RETRY_S, RETRY_LIMIT_S = 1.0, 30.0  # backoff while the database is unavailable, doubled each time

log = logging.getLogger(__name__)

_Written = TypeVar("_Written")


class LineChunk:
    """The lines of one job, while they are run."""

    def __init__(self, batches: BatchStore, job: Job, batch: StoredBatch) -> None:
        self.endpoint = batch.endpoint
        self.key_id = batch.key_id
        self._batches = batches
        self._job = job
        self._batch = batch
        self._status = batch.status
        self._has_progressed = False
        self._is_model_unavailable = False

    @property
    def is_over(self) -> bool:
        """True if no more of its lines should be run now."""
        return self._is_model_unavailable or self._is_batch_over

    @property
    def is_last_attempt(self) -> bool:
        """True if these lines have been tried so often that any answer is accepted."""
        return self._job.attempt >= ATTEMPTS_PER_CHUNK and not self._has_progressed

    @property
    def _is_batch_over(self) -> bool:
        return self._status is not BatchStatus.IN_PROGRESS or time.time() >= self._batch.expires_at

    async def store(self, result: LineResult) -> None:
        """Stores a result, durable on return; retries as long as the database is unavailable,
        because the answer has been paid for."""
        self._status = await _retry_write(partial(self._batches.record, self._batch.id, result))
        if not self._has_progressed:
            self._has_progressed = True
            # An error would stop the chunk's other lines, which would be paid for again.
            await _retry_write(partial(self._batches.record_progress, self._job))

    def mark_model_unavailable(self) -> None:
        """Marks the model as unavailable, so that the other lines are not run either."""
        self._is_model_unavailable = True

    async def finish(self) -> None:
        """Finishes the job, or postpones the batch and raises `RetryLater` if its model is
        unavailable, so that other batches run meanwhile.
        """
        if self._is_model_unavailable and not self._is_batch_over:
            await self._batches.postpone(self._batch.id, POSTPONE_S)
            raise RetryLater(POSTPONE_S)
        await self._batches.finish_lines(self._job)


async def _retry_write(write: Callable[[], Awaitable[_Written]]) -> _Written:
    """Returns what `write` returns; retries it while the database is unavailable."""
    attempt = 0
    while True:
        try:
            return await write()
        except StoreUnavailable as error:
            log.warning("line_not_stored_yet", extra={"reason": str(error)})
            attempt += 1
            await asyncio.sleep(backoff_delay_s(RETRY_S, attempt, RETRY_LIMIT_S))
