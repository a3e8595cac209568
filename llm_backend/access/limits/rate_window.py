"""How much of one limit is left in its window of time (pure).

Windows are fixed: a minute has its amount, and the next one again. Each limit's windows begin at a
moment of their own, so that not everybody comes back at once, and the same on every server.
"""

from zlib import crc32

__all__ = ["RateLimitWindow"]

BLOCKS = 20  # that a limit is taken in


class RateLimitWindow:
    """One limit: `most` in every window. What is not `granted` yet must be asked for; a server
    that shares no limits grants itself all of it as a window begins.
    """

    __slots__ = (
        "_is_shared",
        "_phase",
        "granted",
        "is_alone",
        "is_spent",
        "most",
        "scope",
        "used",
        "vain_amount",
        "vain_at",
        "what",
        "window_at",
        "window_s",
    )

    def __init__(self, scope: str, what: str, most: int, window_s: int, *, is_shared: bool) -> None:
        self.scope = scope
        self.what = what  # requests or tokens
        self.most = most
        self.window_s = window_s
        self._is_shared = is_shared
        self._phase = crc32(scope.encode()) % window_s
        self.window_at = 0
        self.used = 0
        self.granted = 0
        self.is_spent = False  # nobody had any more to grant when it was asked for last
        self.is_alone = False  # it was granted without asking: others know nothing of it
        self.vain_amount = 0  # so much, or more, was asked for in vain
        self.vain_at = 0.0

    @property
    def name(self) -> str:
        """What servers that share it know it by: a day's is another one than a minute's."""
        return f"{self.scope} {self.what} in {self.window_s} s"

    def roll(self, now: float) -> None:
        """Begins the window that it is time for."""
        window_at = int(now) - (int(now) - self._phase) % self.window_s
        if window_at != self.window_at:
            self.window_at = window_at
            self.used = 0
            self.granted = 0 if self._is_shared else self.most
            self.is_spent = not self._is_shared
            self.is_alone = not self._is_shared
            self.vain_at = 0.0

    def missing(self, amount: int) -> int:
        """How much more must be granted before so much can be used."""
        return max(0, self.used + amount - self.granted)

    @property
    def left(self) -> int:
        """What can still be used in this window, as far as this server knows: what it has been
        granted, and less than what it has asked for in vain."""
        known = self.granted if self.is_spent else self.most
        if self.vain_at:
            known = min(known, self.granted + self.vain_amount - 1)
        return max(0, known - self.used)

    def reset_s(self, now: float) -> float:
        """Seconds until the next window."""
        return max(0.0, self.window_at + self.window_s - now)

    @property
    def block(self) -> int:
        """The part that it is taken in: what a server holds unused of it is about so much."""
        return -(-self.most // BLOCKS)

    def shed(self) -> int:
        """Lets go of what is granted far beyond what is used; how much that is."""
        unused = self.granted - self.used
        if self.is_alone or unused <= 2 * self.block:
            return 0
        amount = unused - self.block
        self.granted -= amount
        self.is_spent, self.vain_at = False, 0.0
        return amount

    def correct(self, window_at: int, amount: int) -> None:
        """More or less was used than was taken, in the window that it was taken from."""
        if window_at == self.window_at:
            self.used = max(0, self.used + amount)
