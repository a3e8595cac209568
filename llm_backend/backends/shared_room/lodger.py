"""A room of engines that another process owns, as one that uses them sees it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from llm_backend.backends.berth import MakeEngine, ModelState, Patience
from llm_backend.backends.shared_room.messages import (
    LINE_BYTES,
    ROOM,
    Agreed,
    Asked,
    Busy,
    Changed,
    Choose,
    Chosen,
    Done,
    Engines,
    FromLodger,
    Granted,
    Idle,
    Left,
    Load,
    Refused,
    Settle,
    Unload,
    Use,
    from_owner,
    line,
)
from llm_backend.engine import Engine, EngineStartError, EngineState
from llm_backend.errors import EngineUnavailable

__all__ = ["LodgersBerth", "Lodging"]

ARRIVAL_S = 5.0  # an engine lets others in between two passes
IDLE_S = 0.2  # between two requests of a client that asks one after the other it is not idle
_RETRY_AFTER_S = 2.0
_GONE = "The server is being stopped; ask again when it is back."


class Follower(Protocol):
    """Who is told what the owner decides for all processes."""

    def choose(self, personalities: dict[str, str]) -> None:
        """These personalities are for requests that name none, by model."""
        ...

    async def change(self, settings: str) -> None:
        """These are the settings of local models from now on."""
        ...


class Lodging:
    """The engines that another process keeps, and what is asked of it."""

    def __init__(
        self, told: Engines, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._told = told
        self._reader = reader
        self._writer = writer
        self._stays: dict[str, _Stay] = {}  # by door
        self._berths: dict[str, LodgersBerth] = {}
        self._asked: dict[int, _Ask] = {}
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path) -> AsyncIterator[Self]:
        """Over a connection to the owner of the room in `folder`. Raises `OSError`."""
        reader, writer = await asyncio.open_unix_connection(folder / ROOM, limit=LINE_BYTES)
        first = from_owner(await reader.readline())
        assert isinstance(first, Engines), "the owner begins with what is in memory"
        lodging = cls(first, reader, writer)
        try:
            yield lodging
        finally:
            await lodging.close()

    async def close(self) -> None:
        """Leave the engines, and the owner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(stay.engine.close() for stay in self._stays.values()))
        self._writer.close()

    def follow(self, follower: Follower) -> None:
        """From now on do what the owner says."""
        self._begin(self._run(follower))

    async def arrived(self) -> None:
        """Returns when this process has come in wherever others can be already, or soon."""
        ready = [one.door for one in self._told.engines if one.is_ready and one.door in self._stays]
        with contextlib.suppress(TimeoutError, EngineStartError):  # its state tells
            async with asyncio.timeout(ARRIVAL_S):
                await asyncio.gather(*(self._stays[door].engine.ready() for door in ready))

    def berth(
        self,
        name: str,
        make: MakeEngine,
        needs: Callable[[], Awaitable[int]],
        *,
        patience: Patience,
        idle_unload_s: float | None,
    ) -> "LodgersBerth":
        """A model's place there; what it needs and when it rests is the owner's to know."""
        berth = self._berths[name] = LodgersBerth(self, name, make, patience.deadline_s)
        self._come_in()
        return berth

    async def choose(self, model: str, personality: str) -> None:
        """A personality for requests that name none, in all processes."""
        await self.ask(model, lambda ask: Choose(ask=ask, model=model, personality=personality))

    async def ask(self, model: str, message: Callable[[int], Asked]) -> None:
        """Ask the owner for something; returns when it is so."""
        async with self._asking(model, message):
            return

    async def used(self, model: str) -> "_Stay":
        """The model's engine, entered."""
        async with self._asking(model, lambda ask: Use(ask=ask, model=model)) as asked:
            assert asked.stay is not None, "it was entered when it was granted"
            try:
                await asked.stay.engine.ready()
            except BaseException:
                asked.stay.leave()
                raise
            return asked.stay

    def stay(self, model: str) -> "_Stay | None":
        """The model's engine that takes requests, the latest."""
        staying = [one for one in self._stays.values() if one.model == model and not one.is_leaving]
        return staying[-1] if staying else None

    def leaving(self, model: str) -> bool:
        """Whether its engine is on its way out of memory."""
        return any(one.model == model and one.is_leaving for one in self._told.engines)

    def is_loading(self, model: str) -> bool:
        """Whether it is on its way into memory."""
        return model in self._told.loading

    def tell(self, message: FromLodger) -> None:
        """Say something to the owner."""
        if not self._writer.is_closing():
            self._writer.write(line(message))

    @asynccontextmanager
    async def _asking(self, model: str, message: Callable[[int], Asked]) -> AsyncIterator["_Ask"]:
        number = next(self._numbers)
        asked = self._asked[number] = _Ask(model)
        self.tell(message(number))
        try:
            await asked.answered()
            yield asked
        finally:
            del self._asked[number]
            self.tell(Done(ask=number))

    async def _run(self, follower: Follower) -> None:
        with contextlib.suppress(OSError):  # the owner was killed
            while received := await self._reader.readline():
                await self._take(received, follower)
        for asked in self._asked.values():
            asked.refuse(EngineUnavailable(_GONE, retry_after_s=_RETRY_AFTER_S))

    async def _take(self, received: bytes, follower: Follower) -> None:
        match from_owner(received):
            case Engines() as told:
                self._told = told
                self._come_in()
                self._go_out()
            case Chosen(personalities=personalities):
                follower.choose(personalities)
            case Changed(settings=settings):
                await follower.change(settings)
            case Settle(number=number):
                self._begin(self._settled(number))
            case Granted(ask=ask, door=door):
                if ask in self._asked:
                    self._grant(self._asked[ask], door)
            case Refused(ask=ask) as refused:
                if ask in self._asked:
                    self._asked[ask].refuse(refused.error(self._asked[ask].model))

    def _come_in(self) -> None:
        """Where an engine takes requests for a model that is served here, be its guest."""
        for one in self._told.engines:
            if not one.is_leaving and one.model in self._berths:
                self._stay_at(one.door, one.model)

    def _grant(self, asked: "_Ask", door: str | None) -> None:
        """An engine that was granted may have been told to be leaving before, and left: it is there
        until whoever asked has used it."""
        asked.grant(None if door is None else self._stay_at(door, asked.model))
        self._go_out()

    def _stay_at(self, door: str, model: str) -> "_Stay":
        if door not in self._stays:
            engine = self._berths[model].make(Path(door))
            engine.start()
            self._stays[door] = _Stay(model, door, engine, self.tell)
        return self._stays[door]

    def _go_out(self) -> None:
        """Leave those that are to go, or have gone."""
        staying = {one.door for one in self._told.engines if not one.is_leaving}
        for door, stay in self._stays.items():
            if door not in staying and not stay.is_leaving:
                stay.is_leaving = True
                self._begin(self._leave(stay))

    async def _leave(self, stay: "_Stay") -> None:
        await stay.drained()
        del self._stays[stay.door]
        await stay.engine.close()
        if stay.door not in self._stays:  # nobody has come in again
            self.tell(Left(door=stay.door))

    async def _settled(self, number: int) -> None:
        for stay in list(self._stays.values()):
            if not stay.is_leaving:
                with contextlib.suppress(EngineStartError):  # which its state tells
                    await stay.engine.ready()
        self.tell(Agreed(number=number))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class LodgersBerth:
    """One model's place in a room that another process owns."""

    def __init__(
        self,
        lodging: Lodging,
        name: str,
        make: MakeEngine,
        deadline_s: float,
    ) -> None:
        self.name = name
        self.make = make
        self._lodging = lodging
        self._deadline_s = deadline_s

    @property
    def engine(self) -> Engine | None:
        """Its engine while it is in memory and takes requests."""
        stay = self._lodging.stay(self.name)
        return None if stay is None else stay.engine

    @property
    def state(self) -> ModelState:
        """Where the model is between disk and memory."""
        engine = self.engine
        if engine is None:
            if self._lodging.leaving(self.name):
                return ModelState.UNLOADING
            is_loading = self._lodging.is_loading(self.name)
            return ModelState.LOADING if is_loading else ModelState.UNLOADED
        if engine.state is EngineState.READY:
            return ModelState.LOADED
        has_failed = engine.state in (EngineState.FAILED, EngineState.CLOSED)
        return ModelState.FAILED if has_failed else ModelState.LOADING

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Engine]:
        """The engine, which stays until the block is left; loads the model if it is not there.
        Raises what the owner's room does."""
        stay = self._lodging.stay(self.name)
        if stay is not None and stay.engine.state is EngineState.READY:
            stay.enter()
        else:
            stay = await self._awaited()
        try:
            yield stay.engine
        finally:
            stay.leave()

    async def load(self) -> None:
        """Have the model in memory; one that could not be loaded is tried again."""
        await self._lodging.ask(self.name, lambda ask: Load(ask=ask, model=self.name))

    async def unload(self) -> None:
        """Have the model's memory free, once all that was begun is finished."""
        await self._lodging.ask(self.name, lambda ask: Unload(ask=ask, model=self.name))

    async def start(self) -> bool:
        """The owner does."""
        return False

    def dismiss(self) -> None:
        """The owner does."""

    async def _awaited(self) -> "_Stay":
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._lodging.used(self.name)
        except TimeoutError as error:
            raise EngineUnavailable(
                f"`{self.name}` was not loaded within {self._deadline_s:g} s.",
                retry_after_s=_RETRY_AFTER_S,
            ) from error


class _Stay:
    """An engine that this process is a guest of, and its requests there."""

    def __init__(
        self, model: str, door: str, engine: Engine, tell: Callable[[FromLodger], None]
    ) -> None:
        self.model = model
        self.door = door
        self.engine = engine
        self.is_leaving = False
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._tell = tell
        self._is_busy = False  # as the owner knows it
        self._idle: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        self._users += 1
        self._unused.clear()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._is_busy:
            self._is_busy = True
            self._tell(Busy(door=self.door))

    def leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._rest)

    async def drained(self) -> None:
        while self._users:
            await self._unused.wait()

    def _rest(self) -> None:
        self._idle = None
        self._is_busy = False
        self._tell(Idle(door=self.door))


class _Ask:
    """What was asked of the owner, until it is answered. An engine that is granted is entered at
    once: what the owner says next may be that it is leaving."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.stay: _Stay | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def grant(self, stay: _Stay | None) -> None:
        if not self._answer.done():
            self.stay = stay
            if stay is not None:
                stay.enter()
            self._answer.set_result(None)

    def refuse(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    async def answered(self) -> None:
        try:
            await self._answer
        except asyncio.CancelledError:
            if self.stay is not None:  # it was granted in this very moment
                self.stay.leave()
            raise
