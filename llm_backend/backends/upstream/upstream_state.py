"""State of one upstream: outstanding requests, permits, and the health that results show."""

import asyncio
import logging
from collections.abc import Callable

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.backends.upstream.upstream_health import UNRECORDED, UpstreamHealth
from llm_backend.errors import UpstreamError

log = logging.getLogger(__name__)


class AnswerResult:
    """Result of one answer, for the health of its upstream. It is one failure at most, and no
    success any more if it turns out to be a failure after its end."""

    def __init__(self, state: "UpstreamState", epoch: int) -> None:
        self._state = state
        self._epoch = epoch
        self._has_succeeded = self._has_failed = False

    def succeed(self) -> None:
        """Records a complete answer, unless a failure of it is recorded."""
        if not self._has_failed:
            self._has_succeeded = True
            self._state.record_success(self._epoch)

    def fail(self) -> None:
        """Records the first failure of the answer."""
        if self._has_failed:
            return
        self._has_failed = True
        if self._has_succeeded:
            self._state.health.withdraw_success(self._epoch)
        self._state.record_failure(self._epoch)


class UpstreamState:
    """Counts the requests of one upstream, and tracks in `health` the results of the latest ones.

    `permits` limit outstanding and reserved requests; `on_permit_free` is called when a request
    ends, `on_ejected` with the seconds of an ejection.
    """

    def __init__(self, config: UpstreamConfig, observer: UpstreamObserver) -> None:
        self.config = config
        self.health = UpstreamHealth()
        self.outstanding = 0
        self.permits = config.concurrency
        self.reserved = 0  # permits of requests that are about to be sent
        self.on_permit_free: Callable[[], None] = _no_waiter
        self.on_ejected: Callable[[float], None] = _no_probe
        self._observer = observer
        self._observer.record_up(1)

    @property
    def name(self) -> str:
        """Name in the settings."""
        return self.config.name

    @property
    def weight(self) -> float:
        """Weight in load balancing."""
        return self.config.weight

    @property
    def has_free_permit(self) -> bool:
        """True if another request may be sent: the upstream is below its concurrency limit."""
        return self.outstanding + self.reserved < self.permits

    def _begin_request(self, *, is_recorded: bool = True) -> int:
        """Counts a request that begins; returns its epoch, by which its result is ignored unless
        `is_recorded`. The caller must close its answer or record its failure."""
        self._count(1)
        return self.health.record_request() if is_recorded else UNRECORDED

    def _record_no_answer(self, error: BaseException, epoch: int) -> None:
        if isinstance(error, UpstreamError):
            self.record_failure(epoch)
        else:
            self.health.record_cancel(epoch)
        self._end_request()

    def _end_request(self) -> None:
        self._count(-1)
        self.on_permit_free()

    def _count(self, change: int) -> None:
        self.outstanding += change
        self._observer.add_outstanding(change)

    def _record_answer_start(self, epoch: int) -> None:
        was_ejected = self.health.is_ejected
        self.health.record_answer_start(epoch)
        if was_ejected and not self.health.is_ejected:
            self._observer.record_up(1)

    def record_success(self, epoch: int) -> None:
        """Records a complete answer."""
        self._record_answer_start(epoch)
        self.health.record_success(epoch)

    def record_failure(self, epoch: int) -> None:
        """Records a failure, which may eject the upstream."""
        was_ejected = self.health.is_ejected
        ejection_s = self.health.record_failure(asyncio.get_running_loop().time(), epoch)
        self._observer.count_failure()
        if ejection_s is not None:
            self.on_ejected(ejection_s)
        if self.health.is_ejected and not was_ejected:
            self._observer.record_up(0)
            log.error("upstream_ejected", extra={"upstream": self.name})


def _no_waiter() -> None:
    """Default callback for a free permit: no request waits."""


def _no_probe(_ejection_s: float) -> None:
    """Default callback for an ejection: only requests probe."""
