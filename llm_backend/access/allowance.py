"""How much of one limit is left in its window of time (pure).

Windows are fixed: a minute has its amount, and the next one again. Each limit's windows begin at a
moment of their own, so that not everybody comes back at once, and the same on every server.
"""

from zlib import crc32

__all__ = ["Allowance"]


class Allowance:
    """One limit: `most` in every window. What is not `granted` yet must be asked for; a server
    that shares no limits grants itself all of it as a window begins.
    """

    __slots__ = (
        "_is_shared",
        "_phase",
        "granted",
        "is_spent",
        "most",
        "scope",
        "used",
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
        self.is_spent = False  # nobody has any more to grant in this window

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

    def missing(self, amount: int) -> int:
        """How much more must be granted before so much can be used."""
        return max(0, self.used + amount - self.granted)

    @property
    def left(self) -> int:
        """What can still be used in this window, as far as this server knows."""
        known = self.granted if self.is_spent else self.most
        return max(0, known - self.used)

    def reset_s(self, now: float) -> float:
        """Seconds until the next window."""
        return max(0.0, self.window_at + self.window_s - now)

    def correct(self, window_at: int, amount: int) -> None:
        """More or less was used than was taken, in the window that it was taken from."""
        if window_at == self.window_at:
            self.used = max(0, self.used + amount)
