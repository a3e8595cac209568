"""Fixed window of one rate limit (pure).

Each window has the full amount. The windows of each limit begin at an offset of their own, so that
clients do not all return together; the offset is the same on every server.
"""

from zlib import crc32

from llm_backend.block_grants import BLOCKS, surplus


class RateLimitWindow:
    """One limit: at most `limit` in every window. This server may use what is `granted` to it, and
    requests more when that is used. A server that shares no limits grants itself the whole limit
    at the start of each window.
    """

    __slots__ = (
        "_is_shared",
        "_offset_s",
        "granted",
        "is_fully_granted",
        "is_unshared",
        "limit",
        "refused_amount",
        "refused_at",
        "scope",
        "unit",
        "used",
        "window_at",
        "window_s",
    )

    def __init__(
        self, scope: str, unit: str, limit: int, window_s: int, *, is_shared: bool
    ) -> None:
        self.scope = scope
        self.unit = unit  # requests or tokens
        self.limit = limit
        self.window_s = window_s
        self._is_shared = is_shared
        self._offset_s = crc32(scope.encode()) % window_s
        self.window_at = 0
        self.used = 0
        self.granted = 0
        self.is_fully_granted = False  # no more can be granted in this window
        self.is_unshared = False  # granted without the database: other servers do not know of it
        self.refused_amount = 0  # by the last refusal: no more is requested for a while
        self.refused_at = 0.0

    @property
    def name(self) -> str:
        """Identifies the limit among servers that share it; the window's length is part of the
        name."""
        return f"{self.scope} {self.unit} in {self.window_s} s"

    def roll(self, now: float) -> None:
        """Begins the current window if the last one is over."""
        window_at = int(now) - (int(now) - self._offset_s) % self.window_s
        if window_at != self.window_at:
            self.window_at = window_at
            self.used = 0
            self.granted = 0 if self._is_shared else self.limit
            self.is_fully_granted = not self._is_shared
            self.is_unshared = not self._is_shared
            self.refused_at = 0.0

    def amount_of(self, tokens: int) -> int:
        """Returns the amount that a request of `tokens` tokens uses: these, or one request."""
        return tokens if self.unit == "tokens" else 1

    def missing(self, amount: int) -> int:
        """Returns the amount that must still be granted before `amount` can be used."""
        return max(0, self.used + amount - self.granted)

    @property
    def remaining(self) -> int:
        """The unused amount of this window, as far as this server knows: what is left of the limit
        or, once no more can be granted, of the server's grants. After the database has refused an
        amount beyond the grants, it is less than both together, which would be refused again."""
        known = self.granted if self.is_fully_granted else self.limit
        if self.refused_at:
            known = min(known, self.granted + self.refused_amount - 1)
        return max(0, known - self.used)

    def reset_s(self, now: float) -> float:
        """Seconds until the next window."""
        return max(0.0, self.window_at + self.window_s - now)

    @property
    def block(self) -> int:
        """The least amount requested from the database at a time. Once more than two blocks of the
        grant are unused, `drop_surplus` returns all but one."""
        return -(-self.limit // BLOCKS)

    def drop_surplus(self) -> int:
        """Gives up all but one block if more than two blocks of the grant are unused; returns the
        amount given up."""
        amount = 0 if self.is_unshared else surplus(self.granted - self.used, self.block)
        if not amount:
            return 0
        self.granted -= amount
        self.is_fully_granted, self.refused_at = False, 0.0
        return amount

    def correct(self, window_at: int, amount: int) -> None:
        """Adds the difference of used and reserved amounts, if the window is still the same one."""
        if window_at == self.window_at:
            self.used = max(0, self.used + amount)
