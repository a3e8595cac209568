"""Several processes use the engines of one: all know the same, and nobody is cut off."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.backends.berth import Berth, ModelState, Patience
from llm_backend.backends.shared_room import Lodging, SharedRoom
from llm_backend.backends.shared_room.lodgers_berth import LodgersBerth
from llm_backend.backends.shared_room.messages import (
    LINE_BYTES,
    ROOM,
    UNREAD_BYTES,
    Changed,
    Engines,
    Idle,
    line,
)
from llm_backend.engine import EngineConfig, EngineStartError
from llm_backend.errors import EngineUnavailable, InvalidRequest, ModelNotFound
from tests.backends.test_engine_room import FakeEngine

LOADED, UNLOADED = ModelState.LOADED, ModelState.UNLOADED


class EngineAt(FakeEngine):
    """An engine that lets others in at a door, or is there for one of them."""

    def __init__(self, door: Path | None, **more: bool) -> None:
        super().__init__(**more)
        self.config = EngineConfig(model_path=Path("m.gguf"), door=door)


class Follower:
    """What a process was told."""

    def __init__(self) -> None:
        self.personalities: dict[str, str] = {}
        self.settings: list[str] = []
        self.is_cut_off = False

    def choose(self, personalities: dict[str, str]) -> None:
        self.personalities = personalities

    async def change(self, settings: str) -> None:
        self.settings.append(settings)

    def cut_off(self) -> None:
        self.is_cut_off = True


def place(lodging: Lodging, name: str, *, deadline_s: float = 5) -> LodgersBerth:
    async def needs() -> int:
        raise AssertionError("the owner knows")

    patience = Patience(deadline_s=deadline_s)
    return lodging.berth(name, EngineAt, needs, patience=patience, idle_unload_s=None)


class Process:
    """One that uses the engines of `a` and `b`."""

    def __init__(self, lodging: Lodging) -> None:
        self.lodging = lodging
        self.follower = Follower()
        lodging.follow(self.follower)
        self.a, self.b = (place(lodging, name) for name in "ab")


class House:
    """A room of 10 bytes with two models of 6, and the processes that use it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.room = SharedRoom(folder, 10)
        self.fails = False
        self._stack = stack

    def berth(self, name: str, *, size: int = 6, idle_s: float | None = None) -> Berth:
        async def needs() -> int:
            return size

        return self.room.berth(
            name, lambda door: EngineAt(door, fails=self.fails), needs, idle_unload_s=idle_s
        )

    async def process(self) -> Process:
        return Process(await self._stack.enter_async_context(Lodging.opened(self.folder)))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest_asyncio.fixture
async def house(folder) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        one = House(folder, stack)
        await stack.enter_async_context(one.room)
        yield one


async def used(berth: LodgersBerth) -> None:
    async with berth.used():
        pass


async def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_what_one_process_loads_or_unloads_is_so_in_all_when_it_is_answered(house):
    house.berth("a")
    one, other = await house.process(), await house.process()

    await one.a.load()
    assert (one.a.state, other.a.state) == (LOADED, LOADED)

    await other.a.unload()
    assert (one.a.state, other.a.state) == (UNLOADED, UNLOADED)


async def test_a_request_in_one_process_loads_its_model_in_the_place_of_another(house):
    house.berth("a"), house.berth("b")
    one, other = await house.process(), await house.process()
    await used(one.a)

    await used(other.b)
    await house.room.agreed()

    assert [one.a.state, one.b.state] == [UNLOADED, LOADED]
    assert house.room.held_bytes == 6


async def test_nobody_is_cut_off_in_any_process_and_who_comes_late_has_a_turn(house):
    house.berth("a"), house.berth("b")
    one, other = await house.process(), await house.process()
    async with one.a.used() as engine:
        waiting = asyncio.create_task(used(other.b))
        await eventually(lambda: one.a.state is ModelState.UNLOADING)
        late = asyncio.create_task(used(one.a))
        await asyncio.sleep(0.02)
        assert not engine.closed.is_set()
        assert not waiting.done()
        assert not late.done()
    await asyncio.gather(waiting, late)

    assert engine.closed.is_set()


async def test_models_that_do_not_fit_together_take_turns_however_many_ask(house):
    house.berth("a"), house.berth("b")
    one, other = await house.process(), await house.process()

    await asyncio.gather(*(used(berth) for berth in (one.a, one.b, other.a, other.b) * 10))

    assert house.room.held_bytes <= 10


async def test_a_model_at_work_in_some_process_does_not_rest(house):
    berth = house.berth("a", idle_s=0.1)
    process = await house.process()
    async with process.a.used():
        await asyncio.sleep(0.2)
        assert berth.state is LOADED
    await eventually(lambda: berth.state is UNLOADED)

    assert process.a.state in (UNLOADED, ModelState.UNLOADING)


async def test_the_owner_is_not_told_of_every_request(house):
    berth = house.berth("a")
    process = await house.process()
    for _ in range(3):
        await used(process.a)
        await asyncio.sleep(0.01)
        assert berth.users == 1

    await eventually(lambda: berth.users == 0)


async def test_a_process_that_dies_keeps_no_model_in_memory(house):
    berth = house.berth("a")
    dead, alive = await house.process(), await house.process()
    held = dead.a.used()
    await held.__aenter__()
    unloading = asyncio.create_task(alive.a.unload())
    await eventually(lambda: berth.is_leaving)

    dead.lodging._writer.close()

    await asyncio.wait_for(unloading, 5)
    assert alive.a.state is UNLOADED


async def test_who_gives_up_waiting_is_no_user(house):
    busy, wanted = house.berth("a"), house.berth("b")
    process = await house.process()
    async with process.a.used():
        waiting = asyncio.create_task(used(process.b))
        await eventually(lambda: busy.is_leaving)
        waiting.cancel()
    await eventually(lambda: wanted.engine is not None)  # it is loaded for whoever comes

    assert wanted.users == 0


async def test_errors_are_those_of_the_owners_room(house):
    house.berth("a", size=11)
    house.berth("b")
    house.fails = True
    process = await house.process()

    with pytest.raises(InvalidRequest, match="`a` would take") as refused:
        await process.a.load()
    with pytest.raises(EngineStartError, match="It is no model"):
        await used(process.b)
    with pytest.raises(ModelNotFound):
        await used(place(process.lodging, "nobody"))
    assert (refused.value.param, refused.value.code) == ("model", "model_too_large")


async def test_who_waits_too_long_is_told_so(house):
    house.berth("a"), house.berth("b")
    process = await house.process()
    impatient = place(process.lodging, "b", deadline_s=0.05)
    async with process.a.used():
        with pytest.raises(EngineUnavailable, match=r"not loaded within 0\.05 s"):
            await used(impatient)


async def test_all_processes_follow_what_is_decided_for_all_and_later_ones_too(house):
    house.berth("a")
    one, other = await house.process(), await house.process()
    await house.room.change("the settings")
    await one.lodging.choose("a", "pirate")
    late = await house.process()
    await house.room.agreed()

    assert [p.follower.personalities for p in (one, other, late)] == [{"a": "pirate"}] * 3
    assert [p.follower.settings for p in (one, other, late)] == [["the settings"]] * 3


async def test_a_model_that_comes_in_the_place_of_one_of_its_name_is_used_from_then_on(house):
    old = house.berth("a", size=4)
    process = await house.process()
    async with process.a.used() as before:
        removing = asyncio.create_task(house.room.remove(old))
        new = house.berth("a", size=4)
        await house.room.start(new)
        await eventually(lambda: process.a.state is LOADED and process.a.engine is not before)
        async with process.a.used() as after:
            assert after is not before
        assert not removing.done()
    await removing

    assert before.closed.is_set()
    assert new.state is LOADED


async def test_when_the_owner_has_gone_who_waits_is_told(house):
    house.berth("a"), house.berth("b")
    process = await house.process()
    async with process.a.used():
        waiting = asyncio.create_task(used(process.b))
        await asyncio.sleep(0.05)
        for lodger in list(house.room._lodgers):
            lodger.close()

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await waiting
    assert process.follower.is_cut_off


async def test_a_process_that_does_not_read_is_cut_off_and_holds_nothing(house, caplog):
    berth = house.berth("a")
    stuck, alive = await house.process(), await house.process()
    held = stuck.a.used()
    await held.__aenter__()
    pipe = stuck.lodging._reader._transport
    pipe.pause_reading()

    for number in range(1, 6):
        house.room._tell(Changed(settings="s" * (LINE_BYTES // 2)))
        await eventually(lambda number=number: len(alive.follower.settings) == number)
    await asyncio.wait_for(alive.a.unload(), 5)
    assert berth.users == 0
    assert "api_process_cut_off" in caplog.text

    pipe.resume_reading()  # the last line it finds is half a line
    await eventually(lambda: stuck.lodging._owner_is_gone)
    with pytest.raises(EngineUnavailable):
        await stuck.a.load()


async def test_who_asks_when_the_owner_has_gone_is_told_at_once(house):
    house.berth("a")
    process = await house.process()
    for lodger in list(house.room._lodgers):
        lodger.close()
    await eventually(lambda: not process.lodging._tasks)

    with pytest.raises(EngineUnavailable, match="being stopped"):
        await asyncio.wait_for(process.a.load(), 1)


async def test_who_leaves_by_himself_is_not_cut_off(house):
    house.berth("a")
    process = await house.process()
    await process.lodging.close()

    assert not process.follower.is_cut_off


async def test_an_owner_that_does_not_read_is_left_and_fills_no_memory(folder, caplog):
    connections: list[asyncio.StreamWriter] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()
        writer.write(line(Engines(engines=[], loading=[])))
        connections.append(writer)

    server = await asyncio.start_unix_server(stuck, folder / ROOM)
    async with server, Lodging.opened(folder) as lodging:
        process = Process(lodging)
        most = 0
        for _ in range(3 * UNREAD_BYTES // (1 << 20)):
            lodging.tell(Idle(door="x" * (1 << 20)))
            most = max(most, lodging._writer.transport.get_write_buffer_size())
        await eventually(lambda: process.follower.is_cut_off)

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await process.a.load()
        connections[0].close()
    assert most <= UNREAD_BYTES + (2 << 20)
    assert "engines_owner_stuck" in caplog.text
