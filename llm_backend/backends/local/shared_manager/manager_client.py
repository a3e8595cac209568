"""Model manager client: leases engines that another process owns."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from llm_backend.backends.local.model_handle import LoadQueueLimits, MakeEngine
from llm_backend.backends.local.shared_manager.engine_lease import EngineLeases, PendingRequest
from llm_backend.backends.local.shared_manager.manager_messages import (
    LINE_BYTES,
    ROOM,
    UNREAD_BYTES,
    Asked,
    ChooseModels,
    EngineReleased,
    EngineStates,
    FromLodger,
    LoadDone,
    LoadGranted,
    LoadRefused,
    ModelsChanged,
    ModelsChosen,
    ReleaseAgreed,
    SettleEngine,
    UseEngine,
    from_owner,
    line,
)
from llm_backend.backends.local.shared_manager.remote_handle import RemoteModelHandle
from llm_backend.engine import EngineStartError
from llm_backend.errors import EngineUnavailable

__all__ = ["ModelManagerClient"]

log = logging.getLogger(__name__)

ARRIVAL_S = 5.0  # seconds; an engine accepts connections between two passes
_RETRY_AFTER_S = 2.0
_GONE = "This process of the server is being stopped; ask again."


class ManagerObserver(Protocol):
    """Receives the decisions that the owner makes for all processes."""

    def choose(self, personalities: dict[str, str]) -> None:
        """Sets the personality of requests that name none, by model."""
        ...

    async def change(self, settings: str) -> None:
        """Applies new settings of local models."""
        ...

    def cut_off(self) -> None:
        """Called when the connection to the owner is lost: no engine can be requested."""
        ...


class ModelManagerClient:
    """Client of a `ModelManagerServer`: leases of its engines, and requests to load or unload."""

    def __init__(
        self, told: EngineStates, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._told = told
        self._reader = reader
        self._writer = writer
        self._stays: dict[str, EngineLeases] = {}  # by socket path
        self._handles: dict[str, RemoteModelHandle] = {}
        self._asked: dict[int, PendingRequest] = {}
        self._owner_is_gone = False
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path) -> AsyncIterator[Self]:
        """Connects to the owner's socket in `folder`, and disconnects at the end. Raises
        `OSError`."""
        reader, writer = await asyncio.open_unix_connection(folder / ROOM, limit=LINE_BYTES)
        first = from_owner(await reader.readline())
        assert isinstance(first, EngineStates), "the owner begins with what is in memory"
        manager_client = cls(first, reader, writer)
        try:
            yield manager_client
        finally:
            await manager_client.close()

    async def close(self) -> None:
        """Closes the connections to the engines and to the owner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(stay.engine.close() for stay in self._stays.values()))
        self._writer.close()

    def follow(self, follower: ManagerObserver) -> None:
        """Starts the task that reads the owner's messages."""
        self._begin(self._run(follower))

    async def arrived(self) -> None:
        """Waits until this process is connected to every ready engine, `ARRIVAL_S` at most."""
        ready = [one.door for one in self._told.engines if one.is_ready and one.door in self._stays]
        with contextlib.suppress(TimeoutError, EngineStartError):  # the engine's state shows it
            async with asyncio.timeout(ARRIVAL_S):
                await asyncio.gather(*(self._stays[door].engine.ready() for door in ready))

    def handle(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> RemoteModelHandle:
        """Creates a handle of a model; `needs` and `idle_unload_s` matter only to the owner."""
        handle = self._handles[name] = RemoteModelHandle(self, name, make, patience.deadline_s)
        self._come_in()
        return handle

    async def choose(self, model: str, personality: str) -> None:
        """Sets the personality of requests that name none, in all processes."""
        await self.ask(
            model, lambda ask: ChooseModels(ask=ask, model=model, personality=personality)
        )

    async def ask(self, model: str, message: Callable[[int], Asked]) -> None:
        """Sends a request to the owner and waits until it is done."""
        async with self._asking(model, message):
            return

    async def used(self, model: str) -> EngineLeases:
        """Returns the lease of the model's ready engine, with one more user."""
        async with self._asking(model, lambda ask: UseEngine(ask=ask, model=model)) as asked:
            assert asked.stay is not None, "it was entered when it was granted"
            try:
                await asked.stay.engine.ready()
            except BaseException:
                asked.stay.leave()
                raise
            return asked.stay

    def stay(self, model: str) -> EngineLeases | None:
        """Returns the latest lease of the model whose engine accepts requests."""
        staying = [one for one in self._stays.values() if one.model == model and not one.is_leaving]
        return staying[-1] if staying else None

    def leaving(self, model: str) -> bool:
        """True if an engine of the model is being unloaded."""
        return any(one.model == model and one.is_leaving for one in self._told.engines)

    def is_loading(self, model: str) -> bool:
        """True if the model is being loaded."""
        return model in self._told.loading

    def tell(self, message: FromLodger) -> None:
        """Sends a message without waiting; disconnects from an owner with too many unread bytes."""
        if self._writer.is_closing():
            return
        unread = self._writer.transport.get_write_buffer_size()
        if unread > UNREAD_BYTES:
            log.error("engines_owner_stuck", extra={"unread_bytes": unread})
            self._writer.transport.abort()  # which ends the read loop, and so `cut_off` is called
            return
        self._writer.write(line(message))

    @asynccontextmanager
    async def _asking(
        self, model: str, message: Callable[[int], Asked]
    ) -> AsyncIterator[PendingRequest]:
        if self._owner_is_gone:
            raise _manager_unavailable()
        number = next(self._numbers)
        asked = self._asked[number] = PendingRequest(model)
        self.tell(message(number))
        try:
            await asked.answered()
            yield asked
        finally:
            del self._asked[number]
            self.tell(LoadDone(ask=number))

    async def _run(self, follower: ManagerObserver) -> None:
        with contextlib.suppress(OSError):  # the owner was killed
            while (received := await self._reader.readline()).endswith(
                b"\n"
            ):  # half a line is none
                await self._take(received, follower)
        self._owner_is_gone = True
        for asked in self._asked.values():
            asked.refuse(_manager_unavailable())
        follower.cut_off()

    async def _take(self, received: bytes, follower: ManagerObserver) -> None:
        match from_owner(received):
            case EngineStates() as told:
                self._told = told
                self._come_in()
                self._go_out()
            case ModelsChosen(personalities=personalities):
                follower.choose(personalities)
            case ModelsChanged(settings=settings):
                await follower.change(settings)
            case SettleEngine(number=number):
                self._begin(self._settled(number))
            case LoadGranted(ask=ask, door=door):
                if ask in self._asked:
                    self._grant(self._asked[ask], door)
            case LoadRefused(ask=ask) as refused:
                if ask in self._asked:
                    self._asked[ask].refuse(refused.error(self._asked[ask].model))

    def _come_in(self) -> None:
        """Leases every engine that accepts requests for a model of this process."""
        for one in self._told.engines:
            if not one.is_leaving and one.model in self._handles:
                self._stay_at(one.door, one.model)

    def _grant(self, asked: PendingRequest, door: str | None) -> None:
        """Completes a request. A granted engine may have been announced as leaving and released
        before: the owner keeps it until the request has used it."""
        asked.grant(None if door is None else self._stay_at(door, asked.model))
        self._go_out()

    def _stay_at(self, door: str, model: str) -> EngineLeases:
        if door not in self._stays:
            engine = self._handles[model].make(Path(door))
            engine.start()
            self._stays[door] = EngineLeases(model, door, engine, self.tell)
        return self._stays[door]

    def _go_out(self) -> None:
        """Releases the engines that are leaving or unloaded."""
        staying = {one.door for one in self._told.engines if not one.is_leaving}
        for door, stay in self._stays.items():
            if door not in staying and not stay.is_leaving:
                stay.is_leaving = True
                self._begin(self._leave(stay))

    async def _leave(self, stay: EngineLeases) -> None:
        await stay.drained()
        del self._stays[stay.door]
        await stay.engine.close()
        if stay.door not in self._stays:  # it was not leased again meanwhile
            self.tell(EngineReleased(door=stay.door))

    async def _settled(self, number: int) -> None:
        for stay in list(self._stays.values()):
            if not stay.is_leaving:
                with contextlib.suppress(EngineStartError):  # the engine's state shows it
                    await stay.engine.ready()
        self.tell(ReleaseAgreed(number=number))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _manager_unavailable() -> EngineUnavailable:
    return EngineUnavailable(_GONE, retry_after_s=_RETRY_AFTER_S)
