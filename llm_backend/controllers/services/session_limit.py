"""Limit of the realtime sessions of one process, and of one key there."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llm_backend.errors import RETRY_AFTER_S, LimitReached, ServiceUnavailable


class SessionLimit:
    """At most `limit` concurrent sessions, and `key_limit` of one key."""

    def __init__(self, limit: int, *, key_limit: int) -> None:
        self._limit = limit
        self._key_limit = key_limit
        self._open: Counter[str | None] = Counter()  # by key; None: the server needs none

    @contextmanager
    def acquire(self, key_id: str | None) -> Iterator[None]:
        """Counts a session within the context. Raises `ServiceUnavailable`, or `LimitReached` for
        a key."""
        if key_id is not None and self._open[key_id] >= self._key_limit:
            raise LimitReached(
                f"This key has {self._key_limit} realtime sessions already; end one, or try again "
                "later.",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._open.total() >= self._limit:
            raise ServiceUnavailable(
                f"This process has {self._limit} realtime sessions already; try again later.",
                code="realtime_sessions_limit_reached",
                retry_after_s=RETRY_AFTER_S,
            )
        self._open[key_id] += 1
        try:
            yield
        finally:
            self._open[key_id] -= 1
            self._open += Counter()  # which drops keys without sessions
