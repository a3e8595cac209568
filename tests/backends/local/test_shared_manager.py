"""Model manager of several processes: clients share engine states, and no request is aborted."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_backend.backends.local.local_handle import LocalModelHandle
from llm_backend.backends.local.model_handle import LoadQueueLimits, ModelState
from llm_backend.backends.local.shared_manager import ModelManagerClient, ModelManagerServer
from llm_backend.backends.local.shared_manager.manager_messages import (
    CLIENT_CHANNEL,
    SERVER_CHANNEL,
    SOCKET,
    EngineIdle,
    EngineStates,
    SettingsChanged,
)
from llm_backend.backends.local.shared_manager.remote_handle import RemoteModelHandle
from llm_backend.engine import EngineConfig, EngineStartError
from llm_backend.errors import EngineUnavailable, InvalidRequest, ModelNotFound
from llm_backend.ipc import MessageConnection
from tests.backends.local.test_model_manager import FakeEngine
from tests.patience import settle

LOADED, UNLOADED = ModelState.LOADED, ModelState.UNLOADED
LIMIT_BYTES = CLIENT_CHANNEL.limit_bytes


class ConnectedEngine(FakeEngine):
    """Engine with a socket path, of its owner or of a client."""

    def __init__(self, socket_path: Path | None, **more: bool) -> None:
        super().__init__(**more)
        self.config = EngineConfig(model_path=Path("m.gguf"), socket_path=socket_path)


class Observer:
    """Records the decisions that a client process has received."""

    def __init__(self) -> None:
        self.personalities: dict[str, str] = {}
        self.settings: list[str] = []
        self.is_disconnected = False

    def choose_personalities(self, personalities: dict[str, str]) -> None:
        self.personalities = personalities

    async def apply_settings(self, settings: str) -> None:
        self.settings.append(settings)

    def disconnect(self) -> None:
        self.is_disconnected = True


def remote_handle(
    client: ModelManagerClient, name: str, *, deadline_s: float = 5
) -> RemoteModelHandle:
    async def estimate_bytes() -> int:
        raise AssertionError("only the owner estimates memory")

    limits = LoadQueueLimits(deadline_s=deadline_s)
    return client.add_model(
        name, ConnectedEngine, estimate_bytes, limits=limits, idle_unload_s=None
    )


class Process:
    """Client process with handles of the models `a` and `b`."""

    def __init__(self, client: ModelManagerClient) -> None:
        self.client = client
        self.observer = Observer()
        client.start(self.observer)
        self.a, self.b = (remote_handle(client, name) for name in "ab")


class Owner:
    """Model manager server with a budget of 10 bytes, models of 6, and its client processes."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.manager = ModelManagerServer(folder, 10)
        self.fails = False
        self._stack = stack

    def add(self, name: str, *, size: int = 6, idle_s: float | None = None) -> LocalModelHandle:
        async def estimate_bytes() -> int:
            return size

        def make(path: Path | None) -> Any:
            return ConnectedEngine(path, fails=self.fails)

        return self.manager.add_model(name, make, estimate_bytes, idle_unload_s=idle_s)

    async def process(self) -> Process:
        return Process(
            await self._stack.enter_async_context(ModelManagerClient.connect(self.folder))
        )

    def disconnect(self) -> None:
        for session in list(self.manager._server.sessions):
            session.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest_asyncio.fixture
async def owner(folder) -> AsyncIterator[Owner]:
    async with AsyncExitStack() as stack:
        one = Owner(folder, stack)
        await stack.enter_async_context(one.manager)
        yield one


async def use(handle: RemoteModelHandle) -> None:
    async with handle.use():
        pass


async def eventually(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def test_load_and_unload_are_seen_by_all_processes_when_they_are_answered(owner):
    owner.add("a")
    one, other = await owner.process(), await owner.process()

    await one.a.load()
    assert (one.a.state, other.a.state) == (LOADED, LOADED)

    await other.a.unload()
    assert (one.a.state, other.a.state) == (UNLOADED, UNLOADED)


async def test_request_of_one_process_evicts_a_model_of_another(owner):
    owner.add("a"), owner.add("b")
    one, other = await owner.process(), await owner.process()
    await use(one.a)

    await use(other.b)
    await owner.manager.synchronize()

    assert [one.a.state, one.b.state] == [UNLOADED, LOADED]
    assert owner.manager.memory_bytes == 6


async def test_drain_waits_for_requests_of_all_processes_and_later_ones_get_a_turn(owner):
    owner.add("a"), owner.add("b")
    one, other = await owner.process(), await owner.process()
    async with one.a.use() as engine:
        waiting = asyncio.create_task(use(other.b))
        await eventually(lambda: one.a.state is ModelState.UNLOADING)
        late = asyncio.create_task(use(one.a))
        await settle()
        assert not engine.closed.is_set()
        assert not waiting.done()
        assert not late.done()
    await asyncio.gather(waiting, late)

    assert engine.closed.is_set()


async def test_models_that_do_not_fit_together_take_turns(owner):
    owner.add("a"), owner.add("b")
    one, other = await owner.process(), await owner.process()

    await asyncio.gather(*(use(handle) for handle in (one.a, one.b, other.a, other.b) * 10))

    assert owner.manager.memory_bytes <= 10


async def test_model_busy_in_one_process_is_not_idle(owner):
    handle = owner.add("a", idle_s=0.1)
    process = await owner.process()
    async with process.a.use():
        await asyncio.sleep(0.2)
        assert handle.state is LOADED
    await eventually(lambda: handle.state is UNLOADED)

    assert process.a.state in (UNLOADED, ModelState.UNLOADING)


async def test_short_gaps_between_requests_are_not_reported_idle(owner):
    handle = owner.add("a")
    process = await owner.process()
    for _ in range(3):
        await use(process.a)
        await asyncio.sleep(0.01)
        assert handle.users.count == 1

    await eventually(lambda: handle.users.count == 0)


async def test_dead_process_holds_no_lease(owner):
    handle = owner.add("a")
    dead, alive = await owner.process(), await owner.process()
    held = dead.a.use()
    await held.__aenter__()
    unloading = asyncio.create_task(alive.a.unload())
    await eventually(lambda: handle.is_unloading)

    dead.client._connection.close()

    await asyncio.wait_for(unloading, 60)
    assert alive.a.state is UNLOADED


async def test_cancelled_request_is_not_counted_as_a_user(owner):
    busy, wanted = owner.add("a"), owner.add("b")
    process = await owner.process()
    async with process.a.use():
        waiting = asyncio.create_task(use(process.b))
        await eventually(lambda: busy.is_unloading)
        waiting.cancel()
    await eventually(lambda: wanted.engine is not None)  # the load continues for later requests

    assert wanted.users.count == 0


async def test_errors_of_the_owner_are_raised_in_the_client(owner):
    owner.add("a", size=11)
    owner.add("b")
    owner.fails = True
    process = await owner.process()

    with pytest.raises(InvalidRequest, match="`a` would take") as refused:
        await process.a.load()
    with pytest.raises(EngineStartError, match="It is no model"):
        await use(process.b)
    with pytest.raises(ModelNotFound):
        await use(remote_handle(process.client, "unknown"))
    assert (refused.value.param, refused.value.code) == ("model", "model_too_large")


async def test_load_deadline_of_the_client_raises(owner):
    owner.add("a"), owner.add("b")
    process = await owner.process()
    impatient = remote_handle(process.client, "b", deadline_s=0.05)
    async with process.a.use():
        with pytest.raises(EngineUnavailable, match=r"not loaded within 0\.05 s"):
            await use(impatient)


async def test_settings_and_personalities_reach_all_processes_and_later_ones(owner):
    owner.add("a")
    one, other = await owner.process(), await owner.process()
    await owner.manager.apply_settings("the settings")
    await one.client.choose_personality("a", "pirate")
    late = await owner.process()
    await owner.manager.synchronize()

    assert [p.observer.personalities for p in (one, other, late)] == [{"a": "pirate"}] * 3
    assert [p.observer.settings for p in (one, other, late)] == [["the settings"]] * 3


async def test_new_model_replaces_one_of_the_same_name(owner):
    old = owner.add("a", size=4)
    process = await owner.process()
    async with process.a.use() as before:
        removing = asyncio.create_task(owner.manager.remove(old))
        new = owner.add("a", size=4)
        await owner.manager.start_if_fits(new)
        await eventually(lambda: process.a.state is LOADED and process.a.engine is not before)
        async with process.a.use() as after:
            assert after is not before
        assert not removing.done()
    await removing

    assert before.closed.is_set()
    assert new.state is LOADED


async def test_lost_owner_fails_waiting_requests(owner):
    owner.add("a"), owner.add("b")
    process = await owner.process()
    async with process.a.use():
        waiting = asyncio.create_task(use(process.b))
        await settle()
        owner.disconnect()

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await waiting
    assert process.observer.is_disconnected


async def test_stuck_client_is_disconnected_and_holds_no_lease(owner, caplog):
    handle = owner.add("a")
    stuck, alive = await owner.process(), await owner.process()
    held = stuck.a.use()
    await held.__aenter__()
    transport = stuck.client._connection._reader._transport
    transport.pause_reading()

    for number in range(1, 6):
        owner.manager._server.send_to_all(SettingsChanged(settings="s" * (LIMIT_BYTES // 2)))
        await eventually(lambda number=number: len(alive.observer.settings) == number)
    await asyncio.wait_for(alive.a.unload(), 60)
    assert handle.users.count == 0
    assert "ipc_peer_stuck" in caplog.text

    transport.resume_reading()  # the last line that it reads is cut off
    await eventually(lambda: stuck.client._requests._disconnected)
    with pytest.raises(EngineUnavailable):
        await stuck.a.load()


async def test_lost_owner_fails_new_requests_at_once(owner):
    owner.add("a")
    process = await owner.process()
    owner.disconnect()
    await eventually(lambda: not process.client._tasks)

    with pytest.raises(EngineUnavailable, match="being stopped"):
        await asyncio.wait_for(process.a.load(), 60)


async def test_client_that_closes_is_not_reported_as_disconnected(owner):
    owner.add("a")
    process = await owner.process()
    await process.client.close()

    assert not process.observer.is_disconnected


async def test_client_closes_its_connection_to_an_owner_that_ends_before_its_first_message(folder):
    is_closed = asyncio.Event()

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        await reader.read()
        is_closed.set()
        writer.close()

    async with await asyncio.start_unix_server(end, folder / SOCKET):
        with pytest.raises(ConnectionResetError) as refused:  # its traceback holds the connection
            async with ModelManagerClient.connect(folder):
                pass

        await asyncio.wait_for(is_closed.wait(), 60)
    assert refused.value.args == ("The process that owns the engines has ended.",)


async def test_client_disconnects_from_a_stuck_owner_within_bounded_memory(folder, caplog):
    connections: list[MessageConnection] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # a private one
        connection = MessageConnection(SERVER_CHANNEL, reader, writer)
        connection.send(EngineStates(engines=[], loading=[]))
        connections.append(connection)

    server = await asyncio.start_unix_server(stuck, folder / SOCKET)
    async with server, ModelManagerClient.connect(folder) as client:
        process = Process(client)
        most = 0
        for _ in range(3 * LIMIT_BYTES // (1 << 20)):
            client._connection.send(EngineIdle(socket_path="x" * (1 << 20)))
            most = max(most, client._connection.unread_bytes)
        await eventually(lambda: process.observer.is_disconnected)

        with pytest.raises(EngineUnavailable, match="being stopped"):
            await process.a.load()
        connections[0].close()
    assert most <= LIMIT_BYTES + (2 << 20)
    assert "ipc_peer_stuck" in caplog.text
