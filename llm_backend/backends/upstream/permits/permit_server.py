"""Permit server: grants permits for all upstreams, in the parent process of its clients."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from llm_backend.backends.upstream.balance import Balance
from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.permits.permit_messages import (
    SERVER_CHANNEL,
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
from llm_backend.backends.upstream.permits.permit_queue import PermitQueue
from llm_backend.block_grants import BLOCKS
from llm_backend.errors import ServiceUnavailable
from llm_backend.ipc import ClientSession, MessageConnection, MessageServer


class PermitServer:
    """Grants permits to the processes that connect in `folder`, `concurrency` per upstream.
    Callers of all processes take turns, as in one `PermitQueue`.

    While more than half of an upstream's permits are free, a process gets a block of them.
    While requests wait for an upstream, permits are granted one by one, and clients return spares.
    """

    def __init__(self, folder: Path, upstreams: Sequence[UpstreamConfig]) -> None:
        self._permits = {one.name: _UpstreamPermits(one) for one in upstreams}
        self._balance = Balance()
        self._queue: PermitQueue[_UpstreamPermits] = PermitQueue(self._balance.choose)
        self._waiting: Counter[str] = Counter()  # waiting requests, by upstream
        self._server: MessageServer[PermitClientMessage, PermitServerMessage, _PermitSession]
        self._server = MessageServer(folder / SOCKET, SERVER_CHANNEL, partial(_PermitSession, self))

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._server.__aexit__(*raised)

    def release(self, session: "_PermitSession", name: str, count: int) -> None:
        """Takes back `count` permits of a client."""
        session.granted[name] -= count
        self._permits[name].outstanding -= count
        self._queue.grant()

    def acquire(self, session: "_PermitSession", request: AcquirePermit) -> None:
        """Grants a permit immediately, or when the client's request has its turn."""
        if free := self._free(request.upstreams):
            self._grant(session, request, self._balance.choose(free))
        else:
            session.start_request(request.number, self._wait(session, request))

    async def _wait(self, session: "_PermitSession", request: AcquirePermit) -> None:
        self._count_waiting(request.upstreams, 1)
        try:
            permits = await self._queue.acquire(
                request.fairness_key,
                group=tuple(sorted(request.upstreams)),
                free=lambda: self._free(request.upstreams),
                timeout_s=request.timeout_s,
            )
        except ServiceUnavailable:
            session.connection.send(PermitTimeout(number=request.number))
        else:
            self._grant(session, request, permits)
        finally:
            self._count_waiting(request.upstreams, -1)

    def _grant(
        self, session: "_PermitSession", request: AcquirePermit, permits: "_UpstreamPermits"
    ) -> None:
        count = 1 if self._waiting[permits.name] else 1 + permits.spare
        permits.outstanding += count
        session.granted[permits.name] += count
        session.connection.send(
            PermitGranted(number=request.number, upstream=permits.name, count=count)
        )

    def _free(self, names: Sequence[str]) -> list["_UpstreamPermits"]:
        return [one for name in names if (one := self._permits[name]).has_free_permit]

    def _count_waiting(self, names: Sequence[str], change: int) -> None:
        before = +self._waiting
        self._waiting.update(dict.fromkeys(names, change))
        if (+self._waiting).keys() != before.keys():
            scarce = PermitsScarce(upstreams=list(+self._waiting))
            self._server.send_to_all(scarce)


class _UpstreamPermits:
    """Permits of one upstream: `outstanding` are granted; `reserved` are about to be granted."""

    def __init__(self, config: UpstreamConfig) -> None:
        self.name = config.name
        self.weight = config.weight
        self.outstanding = 0
        self.reserved = 0
        self._limit = config.concurrency

    @property
    def has_free_permit(self) -> bool:
        return self._free > 0

    @property
    def spare(self) -> int:
        """Number of permits that may be granted beyond the one requested."""
        return self._limit // BLOCKS if self._free > self._limit // 2 else 0

    @property
    def _free(self) -> int:
        return self._limit - self.outstanding - self.reserved


class _PermitSession(ClientSession[PermitClientMessage, PermitServerMessage]):
    """The server's side of one connected client process."""

    def __init__(
        self,
        server: PermitServer,
        connection: MessageConnection[PermitClientMessage, PermitServerMessage],
    ) -> None:
        super().__init__(connection)
        self.granted: Counter[str] = Counter()
        self._server = server

    def handle(self, message: PermitClientMessage) -> None:
        match message:
            case AcquirePermit():
                self._server.acquire(self, message)
            case AcquireCancelled(number=number):
                self.cancel_request(number)
            case ReleasePermit(upstream=name, count=count):
                self._server.release(self, name, count)

    def close(self) -> None:
        """Ends the session: cancels the client's waiting requests and takes back its permits."""
        super().close()
        for name, count in self.granted.items():
            self._server.release(self, name, count)
