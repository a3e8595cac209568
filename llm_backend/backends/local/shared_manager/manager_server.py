"""Model manager server: the process that owns the engines, which other processes use."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from llm_backend.backends.local.model_handle import LocalModelHandle, ModelState
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.backends.local.shared_manager.manager_messages import (
    LINE_BYTES,
    ROOM,
    UNREAD_BYTES,
    Asked,
    ChooseModels,
    EngineBusy,
    EngineIdle,
    EngineReleased,
    EngineStates,
    FromLodger,
    FromOwner,
    LoadDone,
    LoadGranted,
    LoadModel,
    LoadRefused,
    ModelsChanged,
    ModelsChosen,
    OpenEngine,
    ReleaseAgreed,
    SettleEngine,
    UnloadModel,
    UseEngine,
    from_client,
    line,
)
from llm_backend.engine import EngineDown, EngineStartError, EngineState
from llm_backend.errors import ApiError, ModelNotFound

__all__ = ["ModelManagerServer"]

log = logging.getLogger(__name__)

AGREED_S = 5.0  # seconds after which a client that does not answer is no longer waited for


class ModelManagerServer(LocalModelManager):
    """Model manager whose engines are used by client processes, which connect in `folder`.

    A client leases each announced engine without asking, and reports when it becomes busy and idle
    there. An engine to be unloaded is announced as leaving; it is closed when every client has
    released it.
    """

    def __init__(self, folder: Path, budget_bytes: int | None = None) -> None:
        super().__init__(budget_bytes)
        self._folder = folder
        self._doors = itertools.count()
        self._sessions: set[_ClientSession] = set()
        self._chosen: dict[str, str] = {}
        self._settings: str | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(
            self._receive, self._folder / ROOM, limit=LINE_BYTES
        )
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._server.close()
        for session in list(self._sessions):
            session.close()
        await super().__aexit__(*raised)

    def next_door(self) -> Path:
        """Socket path of the next engine; never reused, so that a client cannot mistake a new
        engine for an old one."""
        return self._folder / f"{next(self._doors)}.door"

    def changed(self) -> None:
        """Sends the states of all engines to all clients."""
        engines = self.engines()
        for session in self._sessions:
            session.tell_engines(engines)

    async def emptied(self, handle: LocalModelHandle) -> None:
        """Waits until every client has released the engine."""
        door = _socket_path(handle)
        await asyncio.gather(*(session.has_left(door) for session in self._sessions))

    def engines(self) -> EngineStates:
        """Returns the engines in memory, and the models that are being loaded."""
        return EngineStates(
            engines=[
                OpenEngine(
                    model=handle.name,
                    door=_socket_path(handle),
                    is_ready=handle.engine.state is EngineState.READY,
                    is_leaving=handle.is_leaving or handle.is_removed,
                )
                for handle in self.handles
                if handle.engine is not None
            ],
            loading=[
                handle.name
                for handle in self.handles
                if handle.engine is None and handle.state is ModelState.LOADING
            ],
        )

    def named(self, model: str) -> LocalModelHandle:
        """Returns the handle of a model. Raises `ModelNotFound`."""
        for handle in reversed(self.handles):  # the latest of a name
            if handle.name == model and not handle.is_removed:
                return handle
        raise ModelNotFound(model)

    def behind(self, door: str) -> LocalModelHandle | None:
        """Returns the handle whose engine has this socket path; None if it is unloaded."""
        for handle in self.handles:
            if handle.engine is not None and _socket_path(handle) == door:
                return handle
        return None

    async def choose(self, model: str, personality: str) -> None:
        """Sets the personality of requests that name none; waits until all clients know it."""
        self._chosen[model] = personality
        self._tell(ModelsChosen(personalities=self._chosen))
        await self.agreed()

    async def change(self, settings: str) -> None:
        """Replaces the settings of local models; waits until all clients apply them."""
        self._settings, self._chosen = settings, {}
        self._tell(ModelsChanged(settings=settings))
        await self.agreed()

    async def agreed(self) -> None:
        """Waits until all clients have applied every message so far, `AGREED_S` at most."""
        try:
            async with asyncio.timeout(AGREED_S):
                await asyncio.gather(*(session.agrees() for session in self._sessions))
        except TimeoutError:
            log.warning("api_process_silent", extra={"seconds": AGREED_S})

    def _tell(self, message: FromOwner) -> None:
        for session in self._sessions:
            session.tell(message)

    def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begin(self._serve_client(reader, writer))

    async def _serve_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        session = _ClientSession(self, writer)
        self._sessions.add(session)
        session.tell_engines(self.engines())
        if self._settings is not None:
            session.tell(ModelsChanged(settings=self._settings))
        session.tell(ModelsChosen(personalities=self._chosen))
        try:
            with contextlib.suppress(OSError):  # the client was killed
                # A line without its end was cut off by the client's death.
                while (received := await reader.readline()).endswith(b"\n"):
                    session.take(from_client(received))
        finally:
            self._sessions.discard(session)
            session.close()


class _ClientSession:
    """The owner's side of one connected client process."""

    def __init__(self, room: ModelManagerServer, writer: asyncio.StreamWriter) -> None:
        self._room = room
        self._writer = writer
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._inside: dict[
            str, asyncio.Event
        ] = {}  # by socket path: set when the client has released it
        self._busy: dict[str, LocalModelHandle] = {}
        self._settling: dict[int, asyncio.Event] = {}
        self._numbers = itertools.count()

    def tell(self, message: FromOwner) -> None:
        """Sends a message without waiting; disconnects a client with too many unread bytes."""
        if self._writer.is_closing():
            return
        unread = self._writer.transport.get_write_buffer_size()
        if unread > UNREAD_BYTES:
            log.error("api_process_cut_off", extra={"unread_bytes": unread})
            self._writer.transport.abort()  # which ends the read loop, and so the session
            return
        self._writer.write(line(message))

    def tell_engines(self, engines: EngineStates) -> None:
        for one in engines.engines:
            if not one.is_leaving:
                self._inside.setdefault(one.door, asyncio.Event())
        self.tell(engines)

    async def has_left(self, door: str) -> None:
        if door in self._inside:
            await self._inside[door].wait()

    async def agrees(self) -> None:
        number, settled = next(self._numbers), asyncio.Event()
        self._settling[number] = settled
        self.tell(SettleEngine(number=number))
        await settled.wait()

    def take(self, message: FromLodger) -> None:
        match message:
            case EngineBusy(door=door):
                self._begin_work(door)
            case EngineIdle(door=door):
                self._end_work(door)
            case EngineReleased(door=door):
                self._end_work(door)
                if door in self._inside:
                    self._inside.pop(door).set()
            case ReleaseAgreed(number=number):
                if number in self._settling:
                    self._settling.pop(number).set()
            case LoadDone(ask=ask):
                if ask in self._asked:
                    self._asked[ask].cancel()
            case _:
                self._begin(message)

    def close(self) -> None:
        """Ends the session: cancels the client's requests and releases all its engines."""
        for task in self._asked.values():
            task.cancel()
        for door in list(self._busy):
            self._end_work(door)
        for event in (*self._inside.values(), *self._settling.values()):
            event.set()
        self._inside.clear()
        self._settling.clear()
        self._writer.close()

    def _begin_work(self, door: str) -> None:
        handle = self._room.behind(door)
        if handle is not None and door not in self._busy:
            self._busy[door] = handle
            handle.enter()

    def _end_work(self, door: str) -> None:
        if door in self._busy:
            self._busy.pop(door).leave()

    def _begin(self, asked: Asked) -> None:
        task = asyncio.create_task(self._answered(asked))
        self._asked[asked.ask] = task
        task.add_done_callback(lambda _: self._asked.pop(asked.ask, None))

    async def _answered(self, asked: Asked) -> None:
        try:
            await self._done(asked)
        except (ApiError, EngineDown) as error:
            self.tell(LoadRefused.because(asked.ask, error))
        except OSError as error:  # the worker process could not be started
            failed = EngineStartError(f"The engine cannot be started: {error}.")
            self.tell(LoadRefused.because(asked.ask, failed))
        else:
            self.tell(LoadGranted(ask=asked.ask))

    async def _done(self, asked: Asked) -> None:
        match asked:
            case UseEngine(model=model):
                async with self._room.named(model).used() as engine:
                    self.tell(LoadGranted(ask=asked.ask, door=str(engine.config.socket_path)))
                    await asyncio.Event().wait()  # until `LoadDone`, which cancels this task
            case LoadModel(model=model):
                await self._room.named(model).load()
                await self._room.agreed()
            case UnloadModel(model=model):
                await self._to_its_end(self._room.named(model).unload)
                await self._room.agreed()
            case ChooseModels(model=model, personality=personality):
                await self._room.choose(model, personality)

    async def _to_its_end(self, unload: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Finishes an unload that has begun, even if its request is cancelled."""
        await asyncio.shield(self._room.begin(unload()))


def _socket_path(handle: LocalModelHandle) -> str:
    assert handle.engine is not None, "only what is in memory has a door"
    return str(handle.engine.config.socket_path)
