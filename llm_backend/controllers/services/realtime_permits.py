"""Permits of realtime sessions: how many a process holds at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from llm_backend.errors import RETRY_AFTER_S, Overloaded


class SessionPermits:
    """At most `limit` sessions at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open = 0

    @contextmanager
    def acquire(self) -> Iterator[None]:
        """Holds a permit within the context. Raises `Overloaded`."""
        if self._open >= self._limit:
            raise Overloaded(
                f"This server has {self._limit} realtime sessions already; try again later.",
                code="realtime_sessions_limit_reached",
                retry_after_s=RETRY_AFTER_S,
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
