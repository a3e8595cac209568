"""Deferred usage: work that an upstream continues after its answer, and reports when polled."""

import logging
import time
from collections.abc import Callable

from llm_backend.access.usage.ledger import start_of_minute
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.durations import DAY_S
from llm_backend.store import StoreError
from llm_backend.store.administration import DeferredUsageRow, DeferredUsageStore, Tokens

log = logging.getLogger(__name__)

KEPT_S = 30 * DAY_S  # as long as OpenAI keeps a response
ROWS_LIMIT = 100_000  # some 30 MB


class DeferredUsage:
    """Stores the billing owner of such work, and counts its usage once, when it is reported.

    While the database cannot be used, nothing is stored, and this is logged; usage reported
    meanwhile is counted at the next report.
    """

    def __init__(
        self,
        stored: DeferredUsageStore,
        *,
        clock: Callable[[], float] = time.time,
        limit: int = ROWS_LIMIT,
    ) -> None:
        self._stored = stored
        self._clock = clock
        self._limit = limit

    async def register(
        self, meter: RequestMeter, id: str, *, text_bytes: tuple[int, int] | None = None
    ) -> None:
        """Registers that the request of this meter continues under this id. If its client
        disconnected early, an estimate from `text_bytes` (input, output) is counted immediately."""
        key, counted = meter.defer_usage(), (0, 0)
        if text_bytes is not None:
            counted = meter.count_estimate(input_bytes=text_bytes[0], output_bytes=text_bytes[1])
        begun = DeferredUsageRow(id=id, key=key, input_tokens=counted[0], output_tokens=counted[1])
        try:
            await self._stored.add(begun)
        except StoreError as error:
            log.warning("deferred_usage_not_stored", extra={"id": id, "reason": str(error)})

    async def charge(self, id: str, usage: Tokens) -> None:
        """Counts the reported usage of finished work."""
        try:
            await self._stored.charge(id, usage, minute_at=start_of_minute(self._clock()))
        except StoreError as error:
            log.warning("deferred_usage_not_charged", extra={"id": id, "reason": str(error)})

    async def expire(self) -> None:
        """Deletes entries that were never reported."""
        await self._stored.delete_old(before=int(self._clock()) - KEPT_S, limit=self._limit)
