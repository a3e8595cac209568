"""What was used and is not in the database yet: added up in memory, written behind the answers.

A request costs an addition. What has been added up is written every few seconds, and at the end;
while the database cannot be used, it goes on adding up, by the minute and within a bound.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import NoReturn

from llm_backend.store import StoreError, Unstorable
from llm_backend.store.administration import AMOUNTS, StoredUsage, Tokens, UsageKey

__all__ = ["Ledger"]

log = logging.getLogger(__name__)

EVERY_S = 5.0  # between two writes: what a killed process has not told yet
ENTRIES_MOST = 50_000  # some 20 MB; reached only while the database cannot be used
MINUTE_S = 60
_TOKENS = slice(1, -1)  # of the amounts: between requests and units


class Ledger:
    """Adds up what is used, and writes it."""

    def __init__(
        self,
        stored: StoredUsage,
        *,
        entries_most: int = ENTRIES_MOST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stored = stored
        self._entries_most = entries_most
        self._clock = clock
        self._amounts: dict[UsageKey, list[int]] = {}
        self._is_full = False

    def minute_at(self) -> int:
        """The minute that it is, in unix seconds."""
        now = int(self._clock())
        return now - now % MINUTE_S

    def add(
        self,
        key: UsageKey,
        *,
        requests: int = 0,
        units: int = 0,
        tokens: Tokens | None = None,
    ) -> None:
        """Adds what was used; beyond the bound it is lost, which the log tells."""
        amounts = self._amounts.get(key)
        if amounts is None:
            if len(self._amounts) >= self._entries_most:
                self._tell_full()
                return
            amounts = self._amounts[key] = [0] * len(AMOUNTS)
        amounts[0] += requests
        amounts[-1] += units
        for place, count in enumerate(tokens or (), start=1):
            amounts[place] += count

    async def write(self) -> None:
        """Writes all that has been added up. Raises `StoreError`, and has kept it then; only what
        the database can never hold is lost, which the log tells."""
        amounts, self._amounts = self._amounts, {}
        if not amounts:
            return
        try:
            await self._stored.add(amounts)
        except Unstorable:
            await self._write_each(amounts)
        except StoreError:
            self._take_back(amounts)
            raise
        self._is_full = False

    async def _write_each(self, amounts: dict[UsageKey, list[int]]) -> None:
        """One of them is what cannot be held: it must not keep the others back."""
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
            self._take_back(amounts)

    async def write_forever(self, every_s: float = EVERY_S) -> NoReturn:
        """Writes again and again; what fails is logged and tried again."""
        while True:
            await asyncio.sleep(every_s)
            await self.write_or_tell()

    async def write_or_tell(self) -> None:
        """Writes what there is, or says in the log that it could not."""
        try:
            await self.write()
        except StoreError as error:
            log.warning("usage_not_written", extra={"reason": str(error)})

    def _take_back(self, amounts: dict[UsageKey, list[int]]) -> None:
        meanwhile, self._amounts = self._amounts, amounts
        for key, added in meanwhile.items():
            self.add(key, requests=added[0], units=added[-1], tokens=Tokens(*added[_TOKENS]))

    def _tell_full(self) -> None:
        if not self._is_full:
            log.error("usage_lost", extra={"entries": len(self._amounts)})
        self._is_full = True
