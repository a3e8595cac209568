"""Ledger: usage added up in memory and written to the database in the background.

Counting a request is one addition in memory. The sums are written every few seconds and at
shutdown. While the database cannot be used, sums by minute accumulate up to a bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NoReturn

from llm_backend.store import StoreError, Unstorable
from llm_backend.store.administration import AMOUNTS, StoredUsage, Tokens, UsageKey

log = logging.getLogger(__name__)

EVERY_S = 5.0  # between writes; a killed process loses the usage of this time
ENTRIES_LIMIT = 50_000  # some 20 MB; reached only while the database cannot be used
MINUTE_S = 60
_TOKENS = slice(1, -1)  # tokens among the amounts: between requests and units


def start_of_minute(now: float) -> int:
    """Returns the start of the minute of a time, both in unix seconds."""
    return int(now) - int(now) % MINUTE_S


class Ledger:
    """Adds up usage and writes it."""

    def __init__(
        self,
        stored: StoredUsage,
        *,
        entries_limit: int = ENTRIES_LIMIT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stored = stored
        self._entries_limit = entries_limit
        self._clock = clock
        self._amounts: dict[UsageKey, list[int]] = {}
        self._is_full = False
        self._writing = asyncio.Lock()

    def minute_at(self) -> int:
        """Returns the start of the current minute, in unix seconds."""
        return start_of_minute(self._clock())

    def add(
        self,
        key: UsageKey,
        *,
        requests: int = 0,
        units: int = 0,
        tokens: Tokens | None = None,
    ) -> None:
        """Adds usage; beyond the bound it is lost, which is logged."""
        amounts = self._amounts.get(key)
        if amounts is None:
            if len(self._amounts) >= self._entries_limit:
                self._log_full()
                return
            amounts = self._amounts[key] = [0] * len(AMOUNTS)
        amounts[0] += requests
        amounts[-1] += units
        for index, count in enumerate(tokens or (), start=1):
            amounts[index] += count

    async def write(self) -> None:
        """Writes all sums, after a write in progress has ended. If it raises
        `StoreError`, the sums are kept; an entry that can never be stored is dropped and logged."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        amounts, self._amounts = self._amounts, {}
        if not amounts:
            return
        try:
            await self._stored.add(amounts)
        except Unstorable:
            await self._write_each(amounts)
        except StoreError:
            self._restore(amounts)
            raise
        self._is_full = False

    async def _write_each(self, amounts: dict[UsageKey, list[int]]) -> None:
        """Writes the entries one by one: one that cannot be stored must not block the others."""
        try:
            while amounts:
                key, added = amounts.popitem()
                try:
                    await self._stored.add({key: added})
                except Unstorable as error:
                    log.error("usage_lost", extra={"entries": 1, "reason": str(error)})
                except StoreError:
                    amounts[key] = added
                    raise
        finally:
            self._restore(amounts)

    async def write_forever(self, every_s: float = EVERY_S) -> NoReturn:
        """Writes periodically; failures are logged and retried."""
        while True:
            await asyncio.sleep(every_s)
            await self.write_or_log()

    async def write_or_log(self) -> None:
        """Writes all sums, or logs that it could not."""
        try:
            await self.write()
        except StoreError as error:
            log.warning("usage_not_written", extra={"reason": str(error)})

    def _restore(self, amounts: dict[UsageKey, list[int]]) -> None:
        meanwhile, self._amounts = self._amounts, amounts
        for key, added in meanwhile.items():
            self.add(key, requests=added[0], units=added[-1], tokens=Tokens(*added[_TOKENS]))

    def _log_full(self) -> None:
        if not self._is_full:
            log.error("usage_lost", extra={"entries": len(self._amounts)})
        self._is_full = True
