"""Model manager client: leases engines that another process owns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

from llm_backend.backends.local.model_handle import LoadQueueLimits, MakeEngine
from llm_backend.backends.local.shared_manager.engine_lease import EngineLease
from llm_backend.backends.local.shared_manager.manager_messages import (
    CLIENT_CHANNEL,
    SOCKET,
    ChoosePersonality,
    ClientMessage,
    EngineReleased,
    EngineStates,
    ManagerRequest,
    PersonalitiesChosen,
    RequestDone,
    RequestEnded,
    RequestFailed,
    ServerMessage,
    SettingsChanged,
    Synchronize,
    Synchronized,
    UseEngine,
)
from llm_backend.backends.local.shared_manager.remote_handle import RemoteModelHandle
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.engine import EngineStartError
from llm_backend.errors import EngineUnavailable
from llm_backend.ipc import MessageConnection, PendingRequests

CONNECT_S = 5.0  # an engine accepts connections between two passes


class ManagerObserver(Protocol):
    """Receives the decisions that the owner makes for all processes."""

    def choose_personalities(self, personalities: dict[str, str]) -> None:
        """Sets the personality of requests that name none, by model."""
        ...

    async def apply_settings(self, settings: str) -> None:
        """Applies new settings of local models."""
        ...

    def disconnect(self) -> None:
        """Handles the loss of the connection to the owner: no engine can be requested any more."""
        ...


class ModelManagerClient:
    """Client of a `ModelManagerServer`: leases of its engines, and requests to load or unload."""

    def __init__(
        self, states: EngineStates, connection: MessageConnection[ServerMessage, ClientMessage]
    ) -> None:
        self._states = states
        self._connection = connection
        self._leases: dict[str, EngineLease] = {}  # by socket path
        self._handles: dict[str, RemoteModelHandle] = {}
        self._requests: PendingRequests[EngineLease | None] = PendingRequests(_leave)
        self._tasks = BackgroundTasks()

    @classmethod
    @asynccontextmanager
    async def connect(cls, folder: Path) -> AsyncIterator[Self]:
        """Connects to the owner's socket in `folder`, and disconnects at the end. Raises
        `OSError`."""
        connection: MessageConnection[ServerMessage, ClientMessage]
        connection = await MessageConnection.connect(folder / SOCKET, CLIENT_CHANNEL)
        with contextlib.closing(connection):
            states = await connection.receive()
            if states is None:
                raise ConnectionResetError("The process that owns the engines has ended.")
            assert isinstance(states, EngineStates), "the owner sends the engine states first"
            client = cls(states, connection)
            try:
                yield client
            finally:
                await client.close()

    async def close(self) -> None:
        """Closes the connections to the engines and to the owner."""
        await self._tasks.cancel()
        await asyncio.gather(*(lease.engine.close() for lease in self._leases.values()))
        self._connection.close()

    def start(self, observer: ManagerObserver) -> None:
        """Starts the task that reads the owner's messages."""
        self._tasks.start(self._read(observer))

    async def wait_until_connected(self) -> None:
        """Waits until this process is connected to every ready engine, `CONNECT_S` at most."""
        ready = {one.socket_path for one in self._states.engines if one.is_ready}
        leases = [lease for path, lease in self._leases.items() if path in ready]
        with contextlib.suppress(TimeoutError, EngineStartError):  # the engine's state shows it
            async with asyncio.timeout(CONNECT_S):
                await asyncio.gather(*(lease.engine.ready() for lease in leases))

    def add_model(
        self,
        name: str,
        make_engine: MakeEngine,
        estimate_bytes: Callable[[], Awaitable[int]],
        *,
        limits: LoadQueueLimits,
        idle_unload_s: float | None,
    ) -> RemoteModelHandle:
        """Creates a handle. `estimate_bytes` is not used: the owner estimates the memory itself."""
        handle = RemoteModelHandle(self, name, make_engine, limits, idle_unload_s)
        self._handles[name] = handle
        self._lease_engines()
        return handle

    async def choose_personality(self, model: str, personality: str) -> None:
        """Sets the personality of requests that name none, in all processes."""
        await self.request(
            lambda number: ChoosePersonality(number=number, model=model, personality=personality)
        )

    async def request(self, message: Callable[[int], ManagerRequest]) -> None:
        """Sends a request to the owner and waits until it is done."""
        async with self._request(message):
            return

    async def enter_loaded(self, model: str) -> EngineLease:
        """Returns the lease of the model's engine once it is ready, with one more user."""
        async with self._request(lambda number: UseEngine(number=number, model=model)) as lease:
            assert lease is not None, "the owner answers with an engine"
            try:
                await lease.engine.ready()
            except BaseException:
                lease.leave()
                raise
            return lease

    def find_lease(self, model: str) -> EngineLease | None:
        """Returns the latest lease of the model whose engine accepts requests."""
        leases = [one for one in self._leases.values() if one.model == model and not one.is_ending]
        return leases[-1] if leases else None

    def is_unloading(self, model: str) -> bool:
        """True if an engine of the model is being unloaded."""
        return any(one.model == model and one.is_unloading for one in self._states.engines)

    def is_loading(self, model: str) -> bool:
        """True if the model is being loaded."""
        return model in self._states.loading

    @asynccontextmanager
    async def _request(
        self, message: Callable[[int], ManagerRequest]
    ) -> AsyncIterator[EngineLease | None]:
        number = self._requests.begin()
        self._connection.send(message(number))
        try:
            yield await self._requests.wait(number)
        finally:
            self._connection.send(RequestEnded(number=number))

    async def _read(self, observer: ManagerObserver) -> None:
        while (message := await self._connection.receive()) is not None:
            await self._handle(message, observer)
        self._requests.disconnect(_manager_unavailable)
        observer.disconnect()

    async def _handle(self, message: ServerMessage, observer: ManagerObserver) -> None:
        match message:
            case EngineStates():
                self._states = message
                self._lease_engines()
                self._end_leases()
            case PersonalitiesChosen(personalities=personalities):
                observer.choose_personalities(personalities)
            case SettingsChanged(settings=settings):
                await observer.apply_settings(settings)
            case Synchronize(number=number):
                self._tasks.start(self._synchronize(number))
            case RequestDone(number=number, model=model, socket_path=socket_path):
                self._end_request(number, model, socket_path)
            case RequestFailed(number=number):
                self._requests.fail(number, message.decode_error())

    def _end_request(self, number: int, model: str, socket_path: str | None) -> None:
        """Completes a request. A granted engine gets a user immediately, because it may be
        announced as unloaded before the request runs. The owner keeps it until the request has used
        it."""
        if not self._requests.is_pending(number):
            return
        lease = None if socket_path is None else self._lease(socket_path, model)
        if lease is not None:
            lease.enter()
        self._requests.answer(number, lease)
        self._end_leases()

    def _lease_engines(self) -> None:
        """Leases every engine that accepts requests for a model of this process."""
        for one in self._states.engines:
            if not one.is_unloading and one.model in self._handles:
                self._lease(one.socket_path, one.model)

    def _lease(self, path: str, model: str) -> EngineLease:
        if path not in self._leases:
            engine = self._handles[model].make_engine(Path(path))
            engine.start()
            self._leases[path] = EngineLease(model, path, engine, self._connection.send)
        return self._leases[path]

    def _end_leases(self) -> None:
        """Releases the engines that are being unloaded or have been."""
        usable = {one.socket_path for one in self._states.engines if not one.is_unloading}
        for path, lease in self._leases.items():
            if path not in usable and not lease.is_ending:
                lease.is_ending = True
                self._tasks.start(self._release(lease))

    async def _release(self, lease: EngineLease) -> None:
        await lease.wait_until_unused()
        del self._leases[lease.socket_path]
        await lease.engine.close()
        if lease.socket_path not in self._leases:  # it was not leased again meanwhile
            self._connection.send(EngineReleased(socket_path=lease.socket_path))

    async def _synchronize(self, number: int) -> None:
        for lease in list(self._leases.values()):
            if not lease.is_ending:
                with contextlib.suppress(EngineStartError):  # the engine's state shows it
                    await lease.engine.ready()
        self._connection.send(Synchronized(number=number))


def _leave(lease: EngineLease | None) -> None:
    if lease is not None:
        lease.leave()


def _manager_unavailable() -> EngineUnavailable:
    return EngineUnavailable("This process of the server is being stopped; ask again.")
