"""Whether an upstream is asked, told from how its latest requests ended (pure)."""

__all__ = ["Health"]

FAILURES = 3  # in a row: one may be the request's fault, three are not
EJECTION_S = 5.0
LONGEST_EJECTION_S = 60.0


class Health:
    """Ejects an upstream that fails again and again, then lets one request at a time probe it.

    An answer that has begun ends the ejection, and one that is whole makes the failures before it
    count no more: who breaks off every answer is ejected too. Each ejection without a whole answer
    since the last one is twice as long, up to a minute. Every request that `begin` has admitted
    ends with one of `succeeded`, `failed` and `left`.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._ejected_until = 0.0
        self._ejection_s = EJECTION_S
        self._is_probed = False

    @property
    def is_ejected(self) -> bool:
        """Whether it has failed too often and not answered since."""
        return self._failures >= FAILURES

    def is_able(self, now_s: float) -> bool:
        """Whether it can be expected to answer: it is well, or its ejection is over."""
        return not self.is_ejected or now_s >= self._ejected_until

    def admits(self, now_s: float) -> bool:
        """Whether a request may be sent: it is well, or it is time for a probe."""
        return not self.is_ejected or (not self._is_probed and self.is_able(now_s))

    def begin(self) -> None:
        """A request is sent; while the upstream is ejected, it is the probe."""
        self._is_probed = self.is_ejected

    def answers(self) -> None:
        """An answer has begun; how it ends is still to be told."""
        self._failures = min(self._failures, FAILURES - 1)
        self._is_probed = False

    def succeeded(self) -> None:
        """An answer came, whole."""
        self._failures = 0
        self._ejection_s = EJECTION_S
        self._is_probed = False

    def failed(self, now_s: float) -> None:
        """None came, or none to its end, or one that says that the upstream is down."""
        self._failures += 1
        self._is_probed = False
        if not self.is_ejected or now_s < self._ejected_until:
            return  # requests that were out when it was ejected say nothing new
        self._ejected_until = now_s + self._ejection_s
        self._ejection_s = min(2 * self._ejection_s, LONGEST_EJECTION_S)

    def left(self) -> None:
        """The client left before it could be told."""
        self._is_probed = False
