"""Outlier ejection of an upstream, by the results of its latest requests (pure)."""

FAILURES = 3  # in a row: one may be the request's fault, three are not
EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0


class Health:
    """Ejects an upstream after consecutive failures, then lets one request at a time probe it.

    An answer's beginning ends the ejection, but only a complete answer resets the count of
    failures: an upstream that breaks off every answer is ejected, too. Each ejection is twice as
    long as the one before, up to a minute, until an answer is complete. Each `record_request` is
    followed by one of `record_success`, `record_failure` and `record_cancel`.

    Known elsewhere as circuit breaker (open while ejected, half-open while probed) with a cooldown.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._ejected_until = 0.0
        self._ejection_s = EJECTION_S
        self._is_probed = False

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

    def record_request(self) -> None:
        """Records that a request is sent; it is the probe if the upstream is ejected."""
        self._is_probed = self.is_ejected

    def record_answer_start(self) -> None:
        """Records that an answer has begun; its end is recorded later."""
        self._failures = min(self._failures, FAILURES - 1)
        self._is_probed = False

    def record_success(self) -> None:
        """Records a complete answer."""
        self._failures = 0
        self._ejection_s = EJECTION_S
        self._is_probed = False

    def record_failure(self, now_s: float) -> None:
        """Records a failure: no answer, an incomplete one, or a status of `retry.DOWN`."""
        self._failures += 1
        self._is_probed = False
        if not self.is_ejected or now_s < self._ejected_until:
            return  # a request that was outstanding at the ejection does not prolong it
        self._ejected_until = now_s + self._ejection_s
        self._ejection_s = min(2 * self._ejection_s, LONGEST_EJECTION_S)

    def record_cancel(self) -> None:
        """Records a request that was cancelled before its result was known."""
        self._is_probed = False
