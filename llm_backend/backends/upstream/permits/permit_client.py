"""Permit client: acquires and releases the permits for upstreams that one process holds."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self

from llm_backend.backends.upstream.attempts import Attempts
from llm_backend.backends.upstream.balance import Balance
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.permits.permit_messages import (
    CLIENT_CHANNEL,
    SOCKET,
    AcquireCancelled,
    AcquirePermit,
    PermitClientMessage,
    PermitGranted,
    PermitServerMessage,
    PermitsScarce,
    PermitTimeout,
    ReleasePermit,
)
from llm_backend.backends.upstream.permits.permit_queue import busy_error
from llm_backend.block_grants import BLOCKS, surplus
from llm_backend.ipc import MessageConnection, PendingRequests

log = logging.getLogger(__name__)

# With a fallback a request waits only this long: enough for other processes to return spare permits
# that the server has called back.
RECALL_S = 0.1


class PermitClient:
    """Client of a `PermitServer`: permits of this process for these upstreams.

    If this process has a spare permit for each upstream that may answer a request, one of them is
    used. Otherwise a permit is acquired from the server, which knows the load of all processes.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        connection: MessageConnection[PermitServerMessage, PermitClientMessage],
    ) -> None:
        self._upstreams = {one.name: one for one in upstreams}
        self._balance = Balance()
        self._connection = connection
        self._requests: PendingRequests[Upstream] = PendingRequests(self._release)
        self._scarce: frozenset[str] = frozenset()
        for one in upstreams:
            one.permits = 0
            one.on_permit_free = partial(self._release_surplus, one)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, folder: Path, upstreams: Sequence[Upstream], on_disconnect: Callable[[], None]
    ) -> AsyncIterator[Self]:
        """Connects to the server's socket in `folder`; `on_disconnect` is called when the
        connection is lost. Raises `OSError`."""
        connection: MessageConnection[PermitServerMessage, PermitClientMessage]
        connection = await MessageConnection.connect(folder / SOCKET, CLIENT_CHANNEL)
        client = cls(upstreams, connection)
        reading = asyncio.create_task(client._read(on_disconnect))
        try:
            yield client
        finally:
            reading.cancel()
            connection.close()

    async def acquire(self, attempts: Attempts) -> Upstream:
        """Waits for a permit and returns its upstream. The caller must send the request before it
        awaits anything else. Raises `ServiceUnavailable`."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + (
            RECALL_S if attempts.request.has_fallback else attempts.queue_timeout_s
        )
        while True:
            upstreams = attempts.candidates()
            if all(one.has_free_permit for one in upstreams):
                return self._balance.choose(upstreams)
            names = [one.name for one in upstreams]
            upstream = await self._request_permit(
                attempts.request.fairness_key, names, max(0.0, until_s - now_s())
            )
            if attempts.may_still_use(upstream):
                return upstream
            self._release_surplus(upstream)  # it was ejected meanwhile

    async def _request_permit(
        self, fairness_key: str, upstreams: list[str], timeout_s: float
    ) -> Upstream:
        number = self._requests.begin()
        self._connection.send(
            AcquirePermit(
                number=number, fairness_key=fairness_key, upstreams=upstreams, timeout_s=timeout_s
            )
        )
        try:
            upstream = await self._requests.wait(number)
        except asyncio.CancelledError:
            self._connection.send(AcquireCancelled(number=number))
            raise
        upstream.reserved -= 1
        return upstream

    def _release(self, upstream: Upstream) -> None:
        """Makes the permit of a cancelled request available to others."""
        upstream.reserved -= 1
        self._release_surplus(upstream)

    async def _read(self, on_disconnect: Callable[[], None]) -> None:
        while (message := await self._connection.receive()) is not None:
            self._handle(message)
        log.error("permit_server_disconnected", extra={"waiting": len(self._requests)})
        self._requests.disconnect(busy_error)
        on_disconnect()

    def _handle(self, message: PermitServerMessage) -> None:
        match message:
            case PermitGranted(number=number, upstream=name, count=count):
                self._add_permits(number, self._upstreams[name], count)
            case PermitTimeout(number=number):
                self._requests.fail(number, busy_error())
            case PermitsScarce(upstreams=names):
                self._scarce = frozenset(names)
                for name in names:
                    self._release_surplus(self._upstreams[name])

    def _add_permits(self, number: int, upstream: Upstream, count: int) -> None:
        upstream.permits += count
        if self._requests.answer(number, upstream):
            upstream.reserved += 1
        else:  # the request was cancelled
            self._release_surplus(upstream)

    def _release_surplus(self, upstream: Upstream) -> None:
        """Releases unused permits: all of them if permits are scarce, otherwise all but one block
        once there are more than two blocks."""
        unused = upstream.permits - upstream.outstanding - upstream.reserved
        block = 0 if upstream.name in self._scarce else upstream.config.concurrency // BLOCKS
        if count := surplus(unused, block):
            upstream.permits -= count
            self._connection.send(ReleasePermit(upstream=upstream.name, count=count))
