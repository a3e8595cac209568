"""The pace at which a connection's requests come in, and when it is too slow (pure)."""

from dataclasses import dataclass

__all__ = ["PaceLimits", "RequestPace"]


@dataclass(frozen=True, kw_only=True)
class PaceLimits:
    """Seconds for a head, from the connection or the head's first byte on; for a body the rate that
    it has at least, and the seconds by which it may fall behind."""

    head_s: float
    body_bytes_per_s: float
    body_grace_s: float


class RequestPace:
    """Measures one connection's requests, one after the other.

    A body is measured by a leaky bucket of seconds: it is full at first, each byte adds what it may
    take at the least rate, and the time in which the server was ready to read drains it.
    """

    def __init__(self, limits: PaceLimits, now_s: float) -> None:
        self._limits = limits
        self._head_since_s: float | None = now_s  # of the connection's first request
        self._credit_s = 0.0
        self.is_in_body = False

    def head_goes_on(self, now_s: float) -> None:
        """Bytes of a head have come, or what may become one."""
        if self._head_since_s is None and not self.is_in_body:
            self._head_since_s = now_s

    def head_ends(self) -> None:
        """The headers are whole; a body may follow."""
        self._head_since_s = None
        self._credit_s = self._limits.body_grace_s
        self.is_in_body = True

    def body_goes_on(self, size_bytes: int) -> None:
        """Bytes of a body have come."""
        earned_s = size_bytes / self._limits.body_bytes_per_s
        self._credit_s = min(self._limits.body_grace_s, self._credit_s + earned_s)

    def request_ends(self) -> None:
        """The request is whole."""
        self.is_in_body = False

    def drain(self, seconds: float) -> None:
        """The server has waited for so long for bytes, and not the client for the server."""
        if self.is_in_body:
            self._credit_s -= seconds

    def is_too_slow(self, now_s: float) -> bool:
        """Whether the request that comes in has had its time."""
        if self.is_in_body:
            return self._credit_s <= 0
        since_s = self._head_since_s
        return since_s is not None and now_s - since_s >= self._limits.head_s
