"""Load and health of one upstream: outstanding requests, permits and ejection (no I/O)."""

import asyncio
import logging
from collections.abc import Callable

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.errors import UpstreamError

log = logging.getLogger(__name__)


FAILURES = 3  # in a row: one may be the request's fault, three are not
EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0


class UpstreamHealth:
    """Ejects an upstream after consecutive failures, then lets one request at a time probe it.

    An answer's beginning ends the ejection, but only a complete answer resets the count of
    failures: an upstream that breaks off every answer is ejected, too. Each ejection is twice as
    long as the one before, up to a minute, until an answer is complete. Nothing is recorded of a
    request whose client leaves after the headers. An answer that turns out to be invalid is a
    failure, even if its headers were a success. A request has the epoch in which it was sent, the
    number of ejections before it. Of one from before the latest ejection nothing is recorded: that
    it fails says nothing new, and that its answer begins or ends does not say that a new request
    would be answered.

    Known elsewhere as circuit breaker (open while ejected, half-open while probed) with a cooldown.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._ejected_until = 0.0
        self._ejection_s = EJECTION_S
        self._is_probed = False
        self._epoch = 0

    @property
    def is_ejected(self) -> bool:
        """True after `FAILURES` consecutive failures, until an answer begins."""
        return self._failures >= FAILURES

    def is_available(self, now_s: float) -> bool:
        """Returns True if the upstream is not ejected, or its ejection time is over."""
        return not self.is_ejected or now_s >= self._ejected_until

    def admits(self, now_s: float) -> bool:
        """Returns True if a request may be sent: not ejected, or it would be the probe."""
        return not self.is_ejected or (not self._is_probed and self.is_available(now_s))

    def record_request(self) -> int:
        """Records that a request is sent; it is the probe if the upstream is ejected. Returns its
        epoch."""
        self._is_probed = self.is_ejected
        return self._epoch

    def record_answer_start(self, epoch: int) -> None:
        """Records that an answer has begun; its end is recorded later."""
        if epoch != self._epoch:
            return
        self._failures = min(self._failures, FAILURES - 1)
        self._is_probed = False

    def record_success(self, epoch: int) -> None:
        """Records a complete answer."""
        if epoch != self._epoch:
            return
        self._failures = 0
        self._ejection_s = EJECTION_S
        self._is_probed = False

    def record_failure(self, now_s: float, epoch: int) -> None:
        """Records a failure: no answer, an invalid, incomplete or redirecting one, a rejected key,
        or a status of `retry.DOWN`."""
        if epoch != self._epoch:
            return
        self._failures += 1
        self._is_probed = False
        if not self.is_ejected:
            return
        self._epoch += 1
        self._ejected_until = now_s + self._ejection_s
        self._ejection_s = min(2 * self._ejection_s, LONGEST_EJECTION_S)

    def record_cancel(self, epoch: int) -> None:
        """Records a request that was cancelled before its result was known."""
        if epoch == self._epoch:
            self._is_probed = False


class UpstreamLoad:
    """Counts the requests of one upstream, and tracks in `health` the results of the latest ones.

    `permits` limit outstanding and reserved requests; `on_permit_free` is called when one ends.
    """

    def __init__(self, config: UpstreamConfig, observer: UpstreamObserver) -> None:
        self.config = config
        self.health = UpstreamHealth()
        self.outstanding = 0
        self.permits = config.concurrency
        self.reserved = 0  # permits of requests that are about to be sent
        self.on_permit_free: Callable[[], None] = _no_waiter
        self._observer = observer
        self._observer.set_up(1)

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

    def _begin_request(self) -> int:
        """Counts a request that begins; returns its epoch. Its answer must be closed, or its
        failure recorded."""
        self._count(1)
        return self.health.record_request()

    def _record_no_answer(self, error: BaseException, epoch: int) -> None:
        if isinstance(error, UpstreamError):
            self._record_failure(epoch)
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
            self._observer.set_up(1)

    def _record_success(self, epoch: int) -> None:
        self._record_answer_start(epoch)
        self.health.record_success(epoch)

    def _record_failure(self, epoch: int) -> None:
        was_ejected = self.health.is_ejected
        self.health.record_failure(asyncio.get_running_loop().time(), epoch)
        self._observer.count_failure()
        if self.health.is_ejected and not was_ejected:
            self._observer.set_up(0)
            log.error("upstream_ejected", extra={"upstream": self.name})


def _no_waiter() -> None:
    """Default callback for a free permit: no request waits."""
