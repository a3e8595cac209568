"""Rate limits of each key, and of each project with each model: a request beyond one is answered
with a 429 that has the `x-ratelimit-*` headers and, unless it exceeds the whole limit,
`Retry-After`.

Requests count by the minute or the day, tokens by the minute. Servers that share limits take
amounts in blocks from the database and count each block down in memory: the database is queried
once for many requests. An amount larger than a block is taken whole or not at all, and its unused
part is returned. While the database cannot be used, each process enforces the whole limit by
itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_backend.access.limits.limit_headers import format_duration, limit_headers
from llm_backend.access.limits.rate_window import RateLimitWindow
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.durations import DAY_S
from llm_backend.errors import RateLimited, RequestsLimited, TokensLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import Grants

log = logging.getLogger(__name__)

RETRY_TAKE_S = 1.0  # after the database refused an amount: other servers may return some
WINDOWS_LIMIT = 100_000  # in memory: expired windows are evicted first, then the oldest

# OpenAI's abbreviations, by unit and seconds of the window.
_ABBREVIATIONS = {("requests", 60): "RPM", ("tokens", 60): "TPM", ("requests", DAY_S): "RPD"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """An amount of requests or tokens in a window of time, for everything under one scope."""

    scope: str
    unit: str  # requests or tokens
    limit: int
    window_s: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowReservation:
    """The amounts that one request has taken of its rate limits."""

    windows: Sequence[RateLimitWindow]
    window_starts: Sequence[int]
    tokens: int
    return_surplus: Callable[[RateLimitWindow], None]

    def correct(self, tokens: int) -> None:
        """Replaces the estimated tokens with the tokens that were used."""
        for window, window_at in zip(self.windows, self.window_starts, strict=True):
            if window.unit == "tokens":
                window.correct(window_at, tokens - self.tokens)
                self.return_surplus(window)

    def cancel(self) -> None:
        """Returns the request and its tokens."""
        for window, window_at in zip(self.windows, self.window_starts, strict=True):
            window.correct(window_at, -window.amount_of(self.tokens))
            self.return_surplus(window)


class RateLimits:
    """Enforces rate limits. `grants` are shared with other processes; None for one
    process on SQLite."""

    def __init__(
        self,
        grants: Grants | None = None,
        *,
        clock: Callable[[], float] = time.time,
        windows_limit: int = WINDOWS_LIMIT,
    ) -> None:
        self._grants = grants
        self._clock = clock
        self._windows_limit = windows_limit
        self._windows: dict[tuple[str, str, int], RateLimitWindow] = {}
        self._taking: dict[RateLimitWindow, asyncio.Task[None]] = {}
        # Requests that wait for grants or have not used them yet; no surplus is returned meanwhile.
        self._granting = 0
        self._database_calls = BackgroundTasks()
        self._is_shared = grants is not None
        self.generation = 0  # increased when windows are evicted: cached policies are then stale

    def windows(self, limits: Sequence[RateLimit]) -> Sequence[RateLimitWindow]:
        """Returns the windows of these limits; requests under one scope share one."""
        return [self._window(limit) for limit in limits]

    async def reserve(self, windows: Sequence[RateLimitWindow], tokens: int) -> WindowReservation:
        """Takes one request and `tokens` tokens from all windows. Raises `RateLimited` (429), and
        takes nothing in that case.
        """
        self._granting += 1
        try:
            while not await self._request_missing(windows, tokens):
                pass  # other requests have used the grant, or the window has ended
        finally:
            self._granting -= 1
        # Checked again, without an await: other requests may have taken some.
        for window in windows:
            amount = window.amount_of(tokens)
            if window.missing(amount):
                raise self._limit_error(window, amount, windows)
        for window in windows:
            window.used += window.amount_of(tokens)
        starts = [window.window_at for window in windows]
        return WindowReservation(
            windows=windows,
            window_starts=starts,
            tokens=tokens,
            return_surplus=self._return_surplus,
        )

    def charge(self, windows: Sequence[RateLimitWindow], tokens: int) -> None:
        """Counts tokens that were used without a reservation, as of now. Tokens beyond the limit
        are not carried into the next window."""
        now = self._clock()
        for window in windows:
            if window.unit == "tokens":
                window.roll(now)
                window.used += tokens

    def headers(self, windows: Sequence[RateLimitWindow]) -> dict[str, str]:
        """Returns the rate limit headers: the tightest limit of each kind."""
        return limit_headers(windows, self._clock())

    async def _request_missing(self, windows: Sequence[RateLimitWindow], tokens: int) -> bool:
        """Requests from the database what these windows lack, as far as it has any left. Returns
        False if another try may get more: a window has ended, or another request used the grant."""
        now = self._clock()
        for window in windows:
            window.roll(now)
        starts = [window.window_at for window in windows]
        for window in windows:
            await self._take(window, window.amount_of(tokens))
        has_ended = starts != [window.window_at for window in windows]
        return not has_ended and not any(
            self._can_take(window, window.amount_of(tokens)) for window in windows
        )

    async def _take(self, window: RateLimitWindow, amount: int) -> None:
        """Takes more from the database, if it has any left. Each window has at most
        one query in flight."""
        while self._can_take(window, amount) and (running := self._taking.get(window)) is not None:
            await asyncio.shield(running)
        if self._grants is not None and self._can_take(window, amount):
            missing = window.missing(amount)
            granting = self._database_calls.start(self._grant(self._grants, window, missing))
            self._taking[window] = granting
            granting.add_done_callback(lambda _: self._taking.pop(window, None))
            await asyncio.shield(granting)  # the grant is kept even if this request leaves

    def _can_take(self, window: RateLimitWindow, amount: int) -> bool:
        """True if a part of this amount is not granted yet, and a query may get it: none was
        refused within `RETRY_TAKE_S`."""
        missing = window.missing(amount)
        if self._grants is None or not missing or window.used + amount > window.limit:
            return False
        was_refused = missing >= window.refused_amount
        return not was_refused or self._clock() >= window.refused_at + RETRY_TAKE_S

    async def _grant(self, grants: Grants, window: RateLimitWindow, missing: int) -> None:
        # All or nothing for a large request: otherwise it would starve smaller ones that fit.
        minimum = missing if missing > window.block else 0
        amount = max(missing, window.block)
        window_at = window.window_at
        is_unshared = False
        try:
            granted = await grants.take(
                window.name, window_at, requested=amount, limit=window.limit, minimum=minimum
            )
        except StoreError as error:
            log.warning("rate_limits_not_shared", extra={"reason": str(error)})
            granted, is_unshared = window.limit - window.granted, True
        if window_at != window.window_at:
            return
        window.granted += granted
        window.is_unshared = window.is_unshared or is_unshared
        window.is_fully_granted = is_unshared or (granted < amount and not minimum)
        if granted < amount:
            window.refused_amount, window.refused_at = max(1, minimum), self._clock()
        else:
            window.refused_at = 0.0

    def _return_surplus(self, window: RateLimitWindow) -> None:
        if self._grants is None or self._granting or not (amount := window.drop_surplus()):
            return
        self._database_calls.start(
            _return_amount(self._grants, window.name, window.window_at, amount)
        )

    async def wait_idle(self) -> None:
        """Waits for all database calls in flight."""
        await self._database_calls.wait_idle()

    def _window(self, limit: RateLimit) -> RateLimitWindow:
        key = (limit.scope, limit.unit, limit.window_s)
        found = self._windows.get(key)
        if found is None:
            if len(self._windows) >= self._windows_limit:
                self._evict()
            found = self._windows[key] = RateLimitWindow(
                limit.scope, limit.unit, limit.limit, limit.window_s, is_shared=self._is_shared
            )
        elif found.limit != limit.limit:
            found.limit = limit.limit
            found.window_at = 0  # a changed limit begins with a new window
        return found

    def _evict(self) -> None:
        """Evicts windows that are over, and the oldest until a tenth of the table is free."""
        now = self._clock()
        self.generation += 1
        current = [(key, one) for key, one in self._windows.items() if one.reset_s(now) > 0]
        limit = self._windows_limit
        self._windows = dict(current[-(limit - limit // 10) :])

    def _limit_error(
        self, window: RateLimitWindow, amount: int, windows: Sequence[RateLimitWindow]
    ) -> RateLimited:
        """Returns the 429 of an exhausted window; without `Retry-After` if no wait can help."""
        now = self._clock()
        wait_s = window.reset_s(now)
        kind = RequestsLimited if window.unit == "requests" else TokensLimited
        abbreviation = _ABBREVIATIONS[window.unit, window.window_s]
        where = " of all processes and servers together" if self._is_shared else ""
        can_ever_fit = amount <= window.limit
        if not can_ever_fit:
            message = (
                f"The request is too large for {window.scope} on {window.unit} ({abbreviation}): "
                f"Limit {window.limit}, Requested {amount}. Send less at once."
            )
        else:
            message = (
                f"Rate limit reached for {window.scope} on {window.unit} ({abbreviation}){where}: "
                f"Limit {window.limit}, Used {window.limit - window.remaining}, "
                f"Requested {amount}. "
                f"Please try again in {format_duration(wait_s)}."
            )
        more = limit_headers(windows, now)
        return kind(message, retry_after_s=wait_s if can_ever_fit else None, more_headers=more)


async def _return_amount(grants: Grants, name: str, window_at: int, amount: int) -> None:
    try:
        await grants.refund(name, window_at, amount)
    except StoreError as error:  # lost until the next window
        log.warning("rate_limits_not_shared", extra={"reason": str(error)})
