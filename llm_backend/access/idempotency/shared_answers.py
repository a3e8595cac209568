"""Idempotency keys of several servers: answers that they share through the database.

The server of the first request claims the key with a lease and renews it until the answer has
ended; other servers poll. While the database cannot be used, each server knows only its own
answers.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from secrets import token_hex
from typing import Any, NoReturn

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.store import StoreError
from llm_backend.store.administration import AnswerClaim, StoredAnswer, StoredAnswers

log = logging.getLogger(__name__)

RETENTION_S = 3600  # storage time of an answer, from its end
LEASE_S = 30  # seconds after which another server may claim the key of a dead one
POLL_S = 0.2  # polling interval while another server makes the answer
SHARED_LIMIT_BYTES = 256 * 1024 * 1024  # of all servers together; the oldest answers are evicted


class SharedAnswers:
    """Claims of this server, and the answers that other servers have stored."""

    def __init__(self, stored: StoredAnswers, *, clock: Callable[[], float] = time.time) -> None:
        self._stored = stored
        self._clock = clock
        self._holders: dict[str, str] = {}  # by idempotency key: the id of this server's claim
        self._writes = BackgroundTasks()  # continue even if the client has disconnected

    async def claim(self, name: str, digest: str) -> AnswerClaim | None:
        """Claims a key. Returns None if the claim succeeds: the caller makes the answer, and then
        calls `store`, or `free` if there is none. Otherwise returns the stored answer, or the
        digest of another request with this key. Waits while another server makes the answer."""
        while True:
            found = await self._try_claim(name, digest)
            if found is None or found.answer is not None or found.digest != digest:
                return found
            await asyncio.sleep(POLL_S)

    async def _try_claim(self, name: str, digest: str) -> AnswerClaim | None:
        holder, now = token_hex(8), int(self._clock())
        self._holders[name] = holder
        try:
            found = await self._stored.claim(
                name, digest=digest, holder=holder, now=now, until=now + LEASE_S
            )
        except asyncio.CancelledError:
            self.free(name)  # the claim may have been written
            raise
        except StoreError as error:
            _log_outage(error)
            del self._holders[name]
            return None
        if found is not None:
            del self._holders[name]
        return found

    def remaining_s(self, claim: AnswerClaim) -> float:
        """Returns the seconds until the claim's answer expires."""
        return claim.until_at - self._clock()

    def store(self, name: str, answer: StoredAnswer) -> None:
        """Stores a whole answer in the background."""
        if holder := self._holders.get(name):
            until = int(self._clock()) + RETENTION_S
            call = self._stored.store(name, holder=holder, answer=answer, until=until)
            self._writes.start(self._write(name, holder, call))

    def free(self, name: str) -> None:
        """Releases a claim without an answer: the next request makes a new one."""
        if holder := self._holders.get(name):
            call = self._stored.free(name, holder=holder)
            self._writes.start(self._write(name, holder, call))

    async def renew_forever(self) -> NoReturn:
        """Renews the claims of this server periodically."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if self._holders:
                await self._log_errors(self._renew())

    async def wait_idle(self) -> None:
        """Waits for all database calls in flight."""
        await self._writes.wait_idle()

    async def expire(self) -> None:
        """Deletes expired answers, and the oldest beyond `SHARED_LIMIT_BYTES`."""
        await self._stored.expire(now=int(self._clock()), limit_bytes=SHARED_LIMIT_BYTES)

    async def _renew(self) -> None:
        until = int(self._clock()) + LEASE_S
        await self._stored.renew(list(self._holders.values()), until=until)

    async def _write(self, name: str, holder: str, call: Coroutine[Any, Any, None]) -> None:
        """Runs a database call; the claim is renewed until the call ends."""
        try:
            await self._log_errors(call)
        finally:
            if self._holders.get(name) == holder:  # the key may have been claimed again
                del self._holders[name]

    async def _log_errors(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except StoreError as error:  # the lease expires
            _log_outage(error)


def _log_outage(error: StoreError) -> None:
    log.warning("idempotency_answers_not_shared", extra={"reason": str(error)})
