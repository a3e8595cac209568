"""Rate limits: requests and tokens a minute, of keys and of projects with models.

Servers that share limits lease amounts in blocks from the database and count each block down in
memory: the database is queried once for many requests. An amount larger than a block is leased
whole or not at all, and its unused part is returned. While the database cannot be used, each
server enforces the whole limit by itself.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_backend.access.limits.rate_window import RateLimitWindow
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.errors import RateLimited, RequestsLimited, TokensLimited
from llm_backend.store import StoreError
from llm_backend.store.administration import Grants

__all__ = ["LIMIT_HEADERS", "RateLimit", "RateLimits", "Reservation", "limit_headers"]

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0  # after an exhausted limit: other servers may have returned some
ALLOWANCES_MOST = (
    100_000  # kept in memory; those of windows that are over go first, then the oldest
)

LIMIT_HEADERS = tuple(
    f"x-ratelimit-{name}-{what}"
    for what in ("requests", "tokens")
    for name in ("limit", "remaining", "reset")
)
"""OpenAI's response headers of rate limits."""

UNITS = {"requests": "RPM", "tokens": "TPM"}
DAILY_UNITS = {"requests": "RPD", "tokens": "TPD"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimit:
    """An amount of requests or tokens in a window of time, for everything under one scope."""

    scope: str
    what: str  # requests or tokens
    most: int
    window_s: int = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """The amounts that one request has taken of its rate limits."""

    allowances: Sequence[RateLimitWindow]
    windows: Sequence[int]
    tokens: int
    give_back: Callable[[RateLimitWindow], None]

    def correct(self, tokens: int) -> None:
        """Replaces the estimated tokens with the tokens that were used."""
        for allowance, window_at in zip(self.allowances, self.windows, strict=True):
            if allowance.what == "tokens":
                allowance.correct(window_at, tokens - self.tokens)
                self.give_back(allowance)


class RateLimits:
    """Enforces rate limits. `grants` are shared with other servers; None for a single server."""

    def __init__(
        self,
        grants: Grants | None = None,
        *,
        clock: Callable[[], float] = time.time,
        allowances_most: int = ALLOWANCES_MOST,
    ) -> None:
        self._grants = grants
        self._clock = clock
        self._allowances_most = allowances_most
        self._allowances: dict[tuple[str, str, int], RateLimitWindow] = {}
        self._asking: dict[RateLimitWindow, asyncio.Lock] = {}
        # Requests between grant and use: none of it is returned meanwhile.
        self._sessions = 0
        self._database_calls = BackgroundTasks()
        self._is_shared = grants is not None
        self.generation = 0  # raised when windows were evicted: cached policies are then stale

    def allowances(self, limits: Sequence[RateLimit]) -> Sequence[RateLimitWindow]:
        """Returns the windows of these limits; requests under one scope share one."""
        return [self._allowance(limit) for limit in limits]

    async def take(self, allowances: Sequence[RateLimitWindow], tokens: int) -> Reservation:
        """Takes one request and `tokens` tokens from all windows. Raises `RateLimited`, and has
        taken nothing then.
        """
        self._sessions += 1
        try:
            await self._have_granted(allowances, tokens)
        finally:
            self._sessions -= 1
        # Checked again, without an await: other requests may have taken some.
        for allowance in allowances:
            amount = tokens if allowance.what == "tokens" else 1
            if allowance.missing(amount):
                raise self._refusal(allowance, amount, allowances)
        for allowance in allowances:
            allowance.used += tokens if allowance.what == "tokens" else 1
        windows = [allowance.window_at for allowance in allowances]
        return Reservation(
            allowances=allowances, windows=windows, tokens=tokens, give_back=self._give_back
        )

    def charge(self, allowances: Sequence[RateLimitWindow], tokens: int) -> None:
        """Counts tokens that were used without a reservation, as of now; an excess is missing to
        later requests."""
        now = self._clock()
        for allowance in allowances:
            if allowance.what == "tokens":
                allowance.roll(now)
                allowance.used += tokens

    def headers(self, allowances: Sequence[RateLimitWindow]) -> dict[str, str]:
        """Returns the rate limit headers: the tightest limit of each kind."""
        return limit_headers(allowances, self._clock())

    async def _have_granted(self, allowances: Sequence[RateLimitWindow], tokens: int) -> None:
        now = self._clock()
        for allowance in allowances:
            allowance.roll(now)
            amount = tokens if allowance.what == "tokens" else 1
            if allowance.missing(amount):
                await self._ask(allowance, amount)

    async def _ask(self, allowance: RateLimitWindow, amount: int) -> None:
        """Leases more from the database, as far as there is more; one query a window at a time."""
        if self._grants is None or self._is_vain(allowance, amount):
            return
        lock = self._asking.setdefault(allowance, asyncio.Lock())
        async with lock:
            missing = allowance.missing(amount)
            if missing and not self._is_vain(allowance, amount):
                granting = self._database_calls.start(self._grant(self._grants, allowance, missing))
                await asyncio.shield(granting)  # the lease is kept even if this request leaves
        if not lock.locked():
            self._asking.pop(allowance, None)

    def _is_vain(self, allowance: RateLimitWindow, amount: int) -> bool:
        """True if a query would be futile, or was so a moment ago."""
        if allowance.used + amount > allowance.most:
            return True
        was_vain = allowance.missing(amount) >= allowance.vain_amount
        return was_vain and self._clock() < allowance.vain_at + ASK_AGAIN_S

    async def _grant(self, grants: Grants, allowance: RateLimitWindow, missing: int) -> None:
        # All or nothing for a large request: otherwise it would starve smaller ones that fit.
        least = missing if missing > allowance.block else 0
        wanted = max(missing, allowance.block)
        window_at = allowance.window_at
        is_alone = False
        try:
            granted = await grants.take(
                allowance.name, window_at, wanted=wanted, most=allowance.most, least=least
            )
        except StoreError as error:
            log.warning("limits_not_shared", extra={"reason": str(error)})
            granted, is_alone = allowance.most - allowance.granted, True
        if window_at != allowance.window_at:
            return
        allowance.granted += granted
        allowance.is_alone = allowance.is_alone or is_alone
        allowance.is_spent = is_alone or (granted < wanted and not least)
        if granted < wanted:
            allowance.vain_amount, allowance.vain_at = max(1, least), self._clock()
        else:
            allowance.vain_at = 0.0

    def _give_back(self, allowance: RateLimitWindow) -> None:
        if self._grants is None or self._sessions or not (amount := allowance.shed()):
            return
        self._database_calls.start(
            _give_back(self._grants, allowance.name, allowance.window_at, amount)
        )

    async def settle(self) -> None:
        """Waits for all database calls in flight."""
        await self._database_calls.settle()

    def _allowance(self, limit: RateLimit) -> RateLimitWindow:
        key = (limit.scope, limit.what, limit.window_s)
        found = self._allowances.get(key)
        if found is None:
            if len(self._allowances) >= self._allowances_most:
                self._forget()
            found = self._allowances[key] = RateLimitWindow(
                limit.scope, limit.what, limit.most, limit.window_s, is_shared=self._is_shared
            )
        elif found.most != limit.most:
            found.most, found.window_at = limit.most, 0  # a changed limit begins with a new window
        return found

    def _forget(self) -> None:
        """Evicts windows that are over, and the oldest until a tenth of the table is free."""
        now = self._clock()
        self.generation += 1
        kept = [(key, one) for key, one in self._allowances.items() if one.reset_s(now) > 0]
        most = self._allowances_most
        self._allowances = dict(kept[-(most - most // 10) :])

    def _refusal(
        self, allowance: RateLimitWindow, amount: int, all_of_them: Sequence[RateLimitWindow]
    ) -> RateLimited:
        now = self._clock()
        wait_s = allowance.reset_s(now)
        kind = RequestsLimited if allowance.what == "requests" else TokensLimited
        per = UNITS[allowance.what] if allowance.window_s == 60 else DAILY_UNITS[allowance.what]
        where = " of all processes and servers together" if self._is_shared else ""
        if amount > allowance.most:
            message = (
                f"The request is too large for {allowance.scope} on {allowance.what} ({per}): "
                f"Limit {allowance.most}, Requested {amount}. Send less at once."
            )
        else:
            message = (
                f"Rate limit reached for {allowance.scope} on {allowance.what} ({per}){where}: "
                f"Limit {allowance.most}, Used {allowance.most - allowance.left}, "
                f"Requested {amount}. "
                f"Please try again in {_format_duration(wait_s)}."
            )
        more = limit_headers(all_of_them, now)
        is_ever = amount <= allowance.most
        return kind(message, retry_after_s=wait_s if is_ever else None, more_headers=more)


async def _give_back(grants: Grants, name: str, window_at: int, amount: int) -> None:
    try:
        await grants.give_back(name, window_at, amount)
    except StoreError as error:  # lost until the next window
        log.warning("limits_not_shared", extra={"reason": str(error)})


def limit_headers(allowances: Sequence[RateLimitWindow], now: float) -> dict[str, str]:
    """Returns OpenAI's headers: limit, remaining and reset of the tightest limit of each kind."""
    headers: dict[str, str] = {}
    for what in ("requests", "tokens"):
        those = [one for one in allowances if one.what == what]
        if not those:
            continue
        tightest = min(those, key=lambda one: one.left)
        headers[f"x-ratelimit-limit-{what}"] = str(tightest.most)
        headers[f"x-ratelimit-remaining-{what}"] = str(tightest.left)
        headers[f"x-ratelimit-reset-{what}"] = _format_duration(tightest.reset_s(now))
    return headers


def _format_duration(seconds: float) -> str:
    """Formats a duration as OpenAI does: 850ms, 12.5s, 6m0s, 23h59m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{int(rest)}s"
    return f"{minutes}m{int(rest)}s" if minutes else f"{rest:.3g}s"
