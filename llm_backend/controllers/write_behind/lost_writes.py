"""Lost writes: answered requests that could not be stored, counted and logged at intervals."""

import logging
import math
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 10.0  # a full disk would otherwise log a line for each answer


class LostWrites:
    """Lost writes of one kind. They are logged as `event`, with the id of the last lost object in
    `id_field`; `on_lost` is called for each."""

    def __init__(
        self,
        event: str,
        id_field: str,
        on_lost: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = event
        self._id_field = id_field
        self._on_lost = on_lost
        self._clock = clock
        self._unlogged = 0
        self._logged_at = -math.inf
        self._last: dict[str, str] = {}

    def add(self, id: str, error: Exception) -> None:
        """Records that the object with this id is lost because of `error`."""
        self._on_lost()
        self._unlogged += 1
        self._last = {self._id_field: id, "reason": str(error)}
        if self._clock() - self._logged_at >= LOG_INTERVAL_S:
            self.report()

    def report(self) -> None:
        """Logs one line for all losses not logged yet, with the fields of the last one."""
        if self._unlogged:
            log.error(self._event, extra={**self._last, "lost": self._unlogged})
            self._unlogged, self._logged_at = 0, self._clock()
