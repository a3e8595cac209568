"""Health of one upstream: its consecutive failures, its ejection, and probes (no I/O)."""

FAILURES = 3  # in a row: one may be the request's fault, three are not
EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0
UNRECORDED = -1  # epoch of a request whose result is ignored


class UpstreamHealth:
    """Ejects an upstream after consecutive failures, then lets one request at a time probe it.

    An answer's beginning ends the ejection, but only a complete answer resets the count of
    failures: an upstream that breaks off every answer is ejected, too. Each ejection is twice as
    long as the one before, up to a minute, until an answer is complete. If a client leaves after
    the answer's beginning, nothing more is recorded of its request. An answer that turns out to be
    invalid is a failure, even though its beginning or its end was recorded.

    Each request has an epoch: the number of ejections before it was sent. The results of requests
    from earlier epochs are ignored: a failure was to be expected, and a success does not prove that
    a new request would be answered.

    Known elsewhere as circuit breaker (open while ejected, half-open while probed) with a cooldown.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._before_success = (0, EJECTION_S)  # failures and the next ejection's time
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
        self._before_success = (self._failures, self._ejection_s)
        self._failures = 0
        self._ejection_s = EJECTION_S
        self._is_probed = False

    def withdraw_success(self, epoch: int) -> None:
        """Restores the failures and the ejection time before the latest success: its answer was
        invalid."""
        if epoch == self._epoch:
            failures, ejection_s = self._before_success
            self._failures = max(self._failures, failures)
            self._ejection_s = max(self._ejection_s, ejection_s)

    def record_failure(self, now_s: float, epoch: int) -> float | None:
        """Records a failure: no answer, an invalid, incomplete or redirecting one, a rejected key,
        or a status of `retry_rules.DOWN`. Returns the seconds of the ejection, if it causes one."""
        if epoch != self._epoch:
            return None
        self._failures += 1
        self._is_probed = False
        if not self.is_ejected:
            return None
        ejection_s = self._ejection_s
        self._epoch += 1
        self._ejected_until = now_s + ejection_s
        self._ejection_s = min(2 * ejection_s, LONGEST_EJECTION_S)
        return ejection_s

    def record_cancel(self, epoch: int) -> None:
        """Records a request that was cancelled before its result was known."""
        if epoch == self._epoch:
            self._is_probed = False
