"""Model manager server: owns the engines of all processes, and leases them to the others."""

import asyncio
import contextlib
import itertools
import logging
from pathlib import Path
from typing import Self

from llm_backend.backends.local.local_handle import LocalModelHandle
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.backends.local.shared_manager.manager_messages import (
    SERVER_CHANNEL,
    SOCKET,
    ChoosePersonality,
    ClientMessage,
    EngineBusy,
    EngineIdle,
    EngineReleased,
    EngineStates,
    LoadModelRequest,
    ManagerRequest,
    OpenEngine,
    PersonalitiesChosen,
    RequestDone,
    RequestEnded,
    RequestFailed,
    ServerMessage,
    SettingsChanged,
    Synchronize,
    Synchronized,
    UnloadModel,
    UseEngine,
)
from llm_backend.engine import EngineDown, EngineStartError, EngineState
from llm_backend.errors import ApiError
from llm_backend.ipc import ClientSession, MessageConnection, MessageServer, PendingRequests

log = logging.getLogger(__name__)

SYNCHRONIZE_S = 5.0  # limit of the wait for clients that do not answer


class ModelManagerServer(LocalModelManager):
    """Model manager whose engines are used by client processes, which connect in `folder`.

    A client leases each announced engine without a request, and reports when it begins and stops
    using it. An engine to be unloaded is announced as such; it is closed when every client has
    released it.
    """

    def __init__(self, folder: Path, budget_bytes: int | None = None) -> None:
        super().__init__(budget_bytes)
        self._folder = folder
        self._engine_numbers = itertools.count()
        self._personalities: dict[str, str] = {}
        self._settings: str | None = None
        self._server = MessageServer(folder / SOCKET, SERVER_CHANNEL, self._open_session)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._server.__aexit__(*raised)
        await super().__aexit__(*raised)

    def next_socket_path(self) -> Path:
        """Returns the socket path of the next engine. No path is used twice: a client cannot
        mistake a new engine for an old one."""
        return self._folder / f"{next(self._engine_numbers)}.sock"

    def notify_change(self) -> None:
        """Sends the states of all engines to all clients."""
        states = self.engine_states()
        for session in self._server.sessions:
            session.send_states(states)

    async def wait_until_released(self, handle: LocalModelHandle) -> None:
        """Waits until every client has released the engine."""
        path = _socket_path(handle)
        sessions = self._server.sessions
        await asyncio.gather(*(session.wait_until_released(path) for session in sessions))

    def engine_states(self) -> EngineStates:
        """Returns the engines in memory, and the models that are being loaded."""
        return EngineStates(
            engines=[
                OpenEngine(
                    model=handle.name,
                    socket_path=_socket_path(handle),
                    is_ready=handle.engine.state is EngineState.READY,
                    is_unloading=handle.is_unloading or handle.is_removed,
                )
                for handle in self.handles
                if handle.engine is not None
            ],
            loading=[one.name for one in self.handles if one.engine is None and one.is_loading],
        )

    def handle_of_engine(self, socket_path: str) -> LocalModelHandle | None:
        """Returns the handle whose engine has this socket path; None if it is unloaded."""
        for handle in self.handles:
            if handle.engine is not None and _socket_path(handle) == socket_path:
                return handle
        return None

    async def choose_personality(self, model: str, personality: str) -> None:
        """Sets the personality of requests that name none; waits until all clients know it."""
        self._personalities[model] = personality
        self._server.send_to_all(PersonalitiesChosen(personalities=self._personalities))
        await self.synchronize()

    async def apply_settings(self, settings: str) -> None:
        """Replaces the settings of local models; waits until all clients apply them."""
        self._settings, self._personalities = settings, {}
        self._server.send_to_all(SettingsChanged(settings=settings))
        await self.synchronize()

    async def synchronize(self) -> None:
        """Waits until all clients have applied every message so far, `SYNCHRONIZE_S` at most."""
        try:
            async with asyncio.timeout(SYNCHRONIZE_S):
                await asyncio.gather(*(one.synchronize() for one in self._server.sessions))
        except TimeoutError:
            log.warning("api_process_silent", extra={"seconds": SYNCHRONIZE_S})

    def _open_session(
        self, connection: MessageConnection[ClientMessage, ServerMessage]
    ) -> "_ManagerSession":
        session = _ManagerSession(self, connection)
        session.send_states(self.engine_states())
        if self._settings is not None:
            connection.send(SettingsChanged(settings=self._settings))
        connection.send(PersonalitiesChosen(personalities=self._personalities))
        return session


class _ManagerSession(ClientSession[ClientMessage, ServerMessage]):
    """The owner's side of one connected client process."""

    def __init__(
        self,
        manager: ModelManagerServer,
        connection: MessageConnection[ClientMessage, ServerMessage],
    ) -> None:
        super().__init__(connection)
        self._manager = manager
        # By socket path: engines that the client may use, and an event set at their release.
        self._leased: dict[str, asyncio.Event] = {}
        self._busy: dict[str, LocalModelHandle] = {}
        self._synchronizing: PendingRequests[None] = PendingRequests()

    def send_states(self, states: EngineStates) -> None:
        for one in states.engines:
            if not one.is_unloading:
                self._leased.setdefault(one.socket_path, asyncio.Event())
        self.connection.send(states)

    async def wait_until_released(self, socket_path: str) -> None:
        if socket_path in self._leased:
            await self._leased[socket_path].wait()

    async def synchronize(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client has disconnected
            number = self._synchronizing.begin()
            self.connection.send(Synchronize(number=number))
            await self._synchronizing.wait(number)

    def handle(self, message: ClientMessage) -> None:
        match message:
            case EngineBusy(socket_path=path):
                self._enter(path)
            case EngineIdle(socket_path=path):
                self._leave(path)
            case EngineReleased(socket_path=path):
                self._leave(path)
                if path in self._leased:
                    self._leased.pop(path).set()
            case Synchronized(number=number):
                self._synchronizing.answer(number, None)
            case RequestEnded(number=number):
                self.cancel_request(number)
            case _:
                self.start_request(message.number, self._answer(message))

    def close(self) -> None:
        """Ends the session: cancels the client's requests and releases all its engines."""
        super().close()
        for path in list(self._busy):
            self._leave(path)
        for released in self._leased.values():
            released.set()
        self._leased.clear()
        self._synchronizing.disconnect(ConnectionResetError)

    def _enter(self, socket_path: str) -> None:
        handle = self._manager.handle_of_engine(socket_path)
        if handle is not None and socket_path not in self._busy:
            self._busy[socket_path] = handle
            handle.users.enter()

    def _leave(self, socket_path: str) -> None:
        if socket_path in self._busy:
            self._busy.pop(socket_path).users.leave()

    async def _answer(self, request: ManagerRequest) -> None:
        try:
            await self._run(request)
        except (ApiError, EngineDown) as error:
            self.connection.send(RequestFailed.encode_error(request, error))
        except OSError as error:  # the worker process could not be started
            failed = EngineStartError(f"The engine cannot be started: {error}.")
            self.connection.send(RequestFailed.encode_error(request, failed))
        else:
            self.connection.send(RequestDone(number=request.number, model=request.model))

    async def _run(self, request: ManagerRequest) -> None:
        match request:
            case UseEngine(number=number, model=model):
                async with self._manager.handle_of_model(model).use() as engine:
                    path = str(engine.config.socket_path)
                    done = RequestDone(number=number, model=model, socket_path=path)
                    self.connection.send(done)
                    await asyncio.Event().wait()  # until `RequestEnded`, which cancels this task
            case LoadModelRequest(model=model):
                await self._manager.handle_of_model(model).load()
                await self._manager.synchronize()
            case UnloadModel(model=model):
                unload = self._manager.handle_of_model(model).unload()
                # An unloading that has begun is finished, even if the request is cancelled.
                await asyncio.shield(self._manager.tasks.start(unload))
                await self._manager.synchronize()
            case ChoosePersonality(model=model, personality=personality):
                await self._manager.choose_personality(model, personality)


def _socket_path(handle: LocalModelHandle) -> str:
    assert handle.engine is not None, "an unloaded model has no socket path"
    return str(handle.engine.config.socket_path)
