"""What was answered and could not be stored: counted, and logged once in a while."""

import logging
import math
import time
from collections.abc import Callable

__all__ = ["Losses"]

log = logging.getLogger(__name__)

LOGGED_EVERY_S = 10.0  # a disk that is full would otherwise get a line for each answer


class Losses:
    """Those of one kind; `event` is their line in the log, `named` how it calls an id, and
    `on_lost` is called for each."""

    def __init__(
        self,
        event: str,
        named: str,
        on_lost: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = event
        self._named = named
        self._on_lost = on_lost
        self._clock = clock
        self._unlogged = 0
        self._logged_at = -math.inf
        self._last: dict[str, str] = {}

    def add(self, id: str, error: Exception) -> None:
        """The object of this id is lost, because of `error`."""
        self._on_lost()
        self._unlogged += 1
        self._last = {self._named: id, "reason": str(error)}
        if self._clock() - self._logged_at >= LOGGED_EVERY_S:
            self.tell()

    def tell(self) -> None:
        """A line of the log for those that have had none, the last one in full."""
        if self._unlogged:
            log.error(self._event, extra={**self._last, "lost": self._unlogged})
            self._unlogged, self._logged_at = 0, self._clock()
