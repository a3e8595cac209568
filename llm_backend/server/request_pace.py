"""Pace at which requests of a connection arrive, and when it is too slow (pure)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PaceLimits:
    """For a head: seconds from the connection, or from its first byte, to its end. For a body: its
    minimum rate, and the seconds by which it may be late."""

    head_s: float
    body_bytes_per_s: float
    body_grace_s: float


class RequestPace:
    """Measures the requests of one connection, one after the other.

    A body is measured by a token bucket of seconds. It starts full; each byte adds the time it
    takes at the minimum rate, and time in which the server was ready to read is subtracted.
    """

    def __init__(self, limits: PaceLimits, now_s: float) -> None:
        self._limits = limits
        self._head_since_s: float | None = now_s  # for the first request of the connection
        self._credit_s = 0.0
        self.is_in_body = False

    def record_head(self, now_s: float) -> None:
        """Bytes of a head, or of a possible head, have arrived."""
        if self._head_since_s is None and not self.is_in_body:
            self._head_since_s = now_s

    def end_head(self) -> None:
        """The head is complete; a body may follow."""
        self._head_since_s = None
        self._credit_s = self._limits.body_grace_s
        self.is_in_body = True

    def record_body(self, size_bytes: int) -> None:
        """Bytes of a body have arrived."""
        earned_s = size_bytes / self._limits.body_bytes_per_s
        self._credit_s = min(self._limits.body_grace_s, self._credit_s + earned_s)

    def end_request(self) -> None:
        """The request is complete."""
        self.is_in_body = False

    def charge_wait(self, seconds: float) -> None:
        """Charges time in which the server waited for bytes of the client."""
        if self.is_in_body:
            self._credit_s -= seconds

    def is_too_slow(self, now_s: float) -> bool:
        """True if the incoming request has exceeded its time."""
        if self.is_in_body:
            return self._credit_s <= 0
        since_s = self._head_since_s
        return since_s is not None and now_s - since_s >= self._limits.head_s
