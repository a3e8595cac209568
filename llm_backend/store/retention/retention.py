"""Retention: deletes objects over an age limit, and the oldest history over a size limit."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from llm_backend.durations import DAY_S
from llm_backend.store.database.database import Database
from llm_backend.store.retention import retention_rows

STEPS_PER_SWEEP = 50  # the next sweep does the rest, so that other writers get their turn

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RetentionLimits:
    """Settings of the same names: the age limit of the objects of `retention_rows.DELETE_OLD`, and
    the limit of the total size of chats, responses and conversations. None means no limit."""

    retain_days: float | None = None
    history_limit_bytes: int | None = None


class Retention:
    """Deletes objects over the limits, oldest first."""

    def __init__(
        self,
        database: Database,
        limits: RetentionLimits,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock

    async def sweep(self) -> None:
        """Deletes a limited number of objects. The bytes of files are removed by the next sweep of
        the blobs."""
        if self._limits.retain_days is not None:
            await self._delete_old(self._limits.retain_days)
        if self._limits.history_limit_bytes is not None:
            await self._delete_excess(self._limits.history_limit_bytes)

    async def _delete_old(self, days: float) -> None:
        deleted = 0
        before = int(self._clock()) - int(days * DAY_S)
        for _ in range(STEPS_PER_SWEEP):
            deleted_in_step = 0
            for delete in retention_rows.DELETE_OLD:
                deleted_in_step += await self._database.write(delete, before=before)
            deleted += deleted_in_step
            if not deleted_in_step:
                break
        if deleted:
            log.info("retention_deleted", extra={"reason": "age", "number": deleted})

    async def _delete_excess(self, history_limit_bytes: int) -> None:
        size_bytes = before = await self._database.read(retention_rows.history_bytes)
        for _ in range(STEPS_PER_SWEEP):
            if size_bytes <= history_limit_bytes:
                break
            excess_bytes = size_bytes - history_limit_bytes
            delete = partial(retention_rows.delete_oldest, excess_bytes=excess_bytes)
            freed = await self._database.write(delete)
            if freed is None:
                break
            size_bytes -= freed
        if size_bytes < before:
            log.info("retention_deleted", extra={"reason": "size", "bytes": before - size_bytes})
