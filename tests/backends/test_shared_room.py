"""Several processes use the engines of one: all know the same, and nobody is cut off."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.backends.local.model_handle import LoadQueueLimits, LocalModelHandle, ModelState
from llm_backend.backends.local.shared_manager import ModelManagerClient, ModelManagerServer
from llm_backend.backends.local.shared_manager.manager_messages import (
    LINE_BYTES,
    ROOM,
    UNREAD_BYTES,
    EngineIdle,
    EngineStates,
    ModelsChanged,
    line,
)
from llm_backend.backends.local.shared_manager.remote_handle import RemoteModelHandle
from llm_backend.engine import EngineConfig, EngineStartError
from llm_backend.errors import EngineUnavailable, InvalidRequest, ModelNotFound
from tests.backends.local.test_model_manager import FakeEngine

LOADED, UNLOADED = ModelState.LOADED, ModelState.UNLOADED


class EngineAt(FakeEngine):
    """An engine that lets others in at a door, or is there for one of them."""

    def __init__(self, door: Path | None, **more: bool) -> None:
        super().__init__(**more)
        self.config = EngineConfig(model_path=Path("m.gguf"), socket_path=door)


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


def place(
    manager_client: ModelManagerClient, name: str, *, deadline_s: float = 5
) -> RemoteModelHandle:
    async def needs() -> int:
        raise AssertionError("the owner knows")

    patience = LoadQueueLimits(deadline_s=deadline_s)
    return manager_client.handle(name, EngineAt, needs, patience=patience, idle_unload_s=None)


class Process:
    """One that uses the engines of `a` and `b`."""

    def __init__(self, manager_client: ModelManagerClient) -> None:
        self.manager_client = manager_client
        self.follower = Follower()
        manager_client.follow(self.follower)
        self.a, self.b = (place(manager_client, name) for name in "ab")


class House:
    """A room of 10 bytes with two models of 6, and the processes that use it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.room = ModelManagerServer(folder, 10)
        self.fails = False
        self._stack = stack

    def handle(self, name: str, *, size: int = 6, idle_s: float | None = None) -> LocalModelHandle:
        async def needs() -> int:
            return size

        return self.room.handle(
            name, lambda door: EngineAt(door, fails=self.fails), needs, idle_unload_s=idle_s
        )

    async def process(self) -> Process:
        return Process(
            await self._stack.enter_async_context(ModelManagerClient.opened(self.folder))
        )


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


async def used(handle: RemoteModelHandle) -> None:
    async with handle.used():
        pass


async def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_what_one_process_loads_or_unloads_is_so_in_all_when_it_is_answered(house):
    house.handle("a")
    one, other = await house.process(), await house.process()

    await one.a.load()
    assert (one.a.state, other.a.state) == (LOADED, LOADED)

    await other.a.unload()
    assert (one.a.state, other.a.state) == (UNLOADED, UNLOADED)


async def test_a_request_in_one_process_loads_its_model_in_the_place_of_another(house):
    house.handle("a"), house.handle("b")
    one, other = await house.process(), await house.process()
    await used(one.a)

    await used(other.b)
    await house.room.agreed()

    assert [one.a.state, one.b.state] == [UNLOADED, LOADED]
    assert house.room.held_bytes == 6


async def test_nobody_is_cut_off_in_any_process_and_who_comes_late_has_a_turn(house):
    house.handle("a"), house.handle("b")
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
    house.handle("a"), house.handle("b")
    one, other = await house.process(), await house.process()

    await asyncio.gather(*(used(handle) for handle in (one.a, one.b, other.a, other.b) * 10))

    assert house.room.held_bytes <= 10


async def test_a_model_at_work_in_some_process_does_not_rest(house):
    handle = house.handle("a", idle_s=0.1)
    process = await house.process()
    async with process.a.used():
        await asyncio.sleep(0.2)
        assert handle.state is LOADED
    await eventually(lambda: handle.state is UNLOADED)

    assert process.a.state in (UNLOADED, ModelState.UNLOADING)


async def test_the_owner_is_not_told_of_every_request(house):
    handle = house.handle("a")
    process = await house.process()
    for _ in range(3):
        await used(process.a)
        await asyncio.sleep(0.01)
        assert handle.users == 1

    await eventually(lambda: handle.users == 0)


async def test_a_process_that_dies_keeps_no_model_in_memory(house):
    handle = house.handle("a")
    dead, alive = await house.process(), await house.process()
    held = dead.a.used()
    await held.__aenter__()
    unloading = asyncio.create_task(alive.a.unload())
    await eventually(lambda: handle.is_leaving)

    dead.manager_client._writer.close()

    await asyncio.wait_for(unloading, 5)
    assert alive.a.state is UNLOADED


async def test_who_gives_up_waiting_is_no_user(house):
    busy, wanted = house.handle("a"), house.handle("b")
    process = await house.process()
    async with process.a.used():
        waiting = asyncio.create_task(used(process.b))
        await eventually(lambda: busy.is_leaving)
        waiting.cancel()
    await eventually(lambda: wanted.engine is not None)  # it is loaded for whoever comes

    assert wanted.users == 0


async def test_errors_are_those_of_the_owners_room(house):
    house.handle("a", size=11)
    house.handle("b")
    house.fails = True
    process = await house.process()

    with pytest.raises(InvalidRequest, match="`a` would take") as refused:
        await process.a.load()
    with pytest.raises(EngineStartError, match="It is no model"):
        await used(process.b)
    with pytest.raises(ModelNotFound):
        await used(place(process.manager_client, "nobody"))
    assert (refused.value.param, refused.value.code) == ("model", "model_too_large")


async def test_who_waits_too_long_is_told_so(house):
    house.handle("a"), house.handle("b")
    process = await house.process()
    impatient = place(process.manager_client, "b", deadline_s=0.05)
    async with process.a.used():
        with pytest.raises(EngineUnavailable, match=r"not loaded within 0\.05 s"):
            await used(impatient)


async def test_all_processes_follow_what_is_decided_for_all_and_later_ones_too(house):
    house.handle("a")
    one, other = await house.process(), await house.process()
    await house.room.change("the settings")
    await one.manager_client.choose("a", "pirate")
    late = await house.process()
    await house.room.agreed()

    assert [p.follower.personalities for p in (one, other, late)] == [{"a": "pirate"}] * 3
    assert [p.follower.settings for p in (one, other, late)] == [["the settings"]] * 3


async def test_a_model_that_comes_in_the_place_of_one_of_its_name_is_used_from_then_on(house):
    old = house.handle("a", size=4)
    process = await house.process()
    async with process.a.used() as before:
        removing = asyncio.create_task(house.room.remove(old))
        new = house.handle("a", size=4)
        await house.room.start(new)
        await eventually(lambda: process.a.state is LOADED and process.a.engine is not before)
        async with process.a.used() as after:
            assert after is not before
        assert not removing.done()
    await removing

    assert before.closed.is_set()
    assert new.state is LOADED


async def test_when_the_owner_has_gone_who_waits_is_told(house):
    house.handle("a"), house.handle("b")
    process = await house.process()
    async with process.a.used():
        waiting = asyncio.create_task(used(process.b))
        await asyncio.sleep(0.05)
        for session in list(house.room._sessions):
            session.close()

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await waiting
    assert process.follower.is_cut_off


async def test_a_process_that_does_not_read_is_cut_off_and_holds_nothing(house, caplog):
    handle = house.handle("a")
    stuck, alive = await house.process(), await house.process()
    held = stuck.a.used()
    await held.__aenter__()
    pipe = stuck.manager_client._reader._transport
    pipe.pause_reading()

    for number in range(1, 6):
        house.room._tell(ModelsChanged(settings="s" * (LINE_BYTES // 2)))
        await eventually(lambda number=number: len(alive.follower.settings) == number)
    await asyncio.wait_for(alive.a.unload(), 5)
    assert handle.users == 0
    assert "api_process_cut_off" in caplog.text

    pipe.resume_reading()  # the last line it finds is half a line
    await eventually(lambda: stuck.manager_client._owner_is_gone)
    with pytest.raises(EngineUnavailable):
        await stuck.a.load()


async def test_who_asks_when_the_owner_has_gone_is_told_at_once(house):
    house.handle("a")
    process = await house.process()
    for session in list(house.room._sessions):
        session.close()
    await eventually(lambda: not process.manager_client._tasks)

    with pytest.raises(EngineUnavailable, match="being stopped"):
        await asyncio.wait_for(process.a.load(), 1)


async def test_who_leaves_by_himself_is_not_cut_off(house):
    house.handle("a")
    process = await house.process()
    await process.manager_client.close()

    assert not process.follower.is_cut_off


async def test_an_owner_that_does_not_read_is_left_and_fills_no_memory(folder, caplog):
    connections: list[asyncio.StreamWriter] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()
        writer.write(line(EngineStates(engines=[], loading=[])))
        connections.append(writer)

    server = await asyncio.start_unix_server(stuck, folder / ROOM)
    async with server, ModelManagerClient.opened(folder) as manager_client:
        process = Process(manager_client)
        most = 0
        for _ in range(3 * UNREAD_BYTES // (1 << 20)):
            manager_client.tell(EngineIdle(door="x" * (1 << 20)))
            most = max(most, manager_client._writer.transport.get_write_buffer_size())
        await eventually(lambda: process.follower.is_cut_off)

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await process.a.load()
        connections[0].close()
    assert most <= UNREAD_BYTES + (2 << 20)
    assert "engines_owner_stuck" in caplog.text
