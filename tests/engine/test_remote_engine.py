"""Several processes use one worker: its owner, and remote clients that connect over a socket."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.engine import (
    CommandFailed,
    EngineClient,
    EngineDown,
    EngineStartError,
    EngineState,
)
from llm_backend.engine.messages import (
    Delta,
    Detokenize,
    Failure,
    Generate,
    Ready,
    Sampling,
    Shutdown,
)
from llm_backend.engine.process.engine_connection import CrashCandidate, EngineConnection
from tests.engine.conftest import answer, config, eventually

PROMPT = "the cat and the dog went to the house"


def request(prompt: str = PROMPT, *, name: str = "r", **fields: object) -> Generate:
    defaults = {"max_tokens": 8, "sampling": Sampling(temperature=0), "ignore_eos": True}
    return Generate(id=name, prompt=prompt, **{**defaults, **fields})


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.fixture
def socket_path(tmp_path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def settings(tiny_llama, socket_path):
    return config(tiny_llama, socket_path=socket_path)


@pytest_asyncio.fixture
async def owner(settings):
    async with EngineClient(settings) as engine:
        yield engine


@pytest_asyncio.fixture
async def remote_engine(owner, settings):
    async with EngineClient.for_remote_worker(settings) as engine:
        yield engine


async def test_remote_engine_waits_for_the_model_and_gets_the_same_answers(owner, remote_engine):
    with pytest.raises(EngineDown, match="loading"):
        await remote_engine.generate(request())
    assert await remote_engine.ready() == await owner.ready()

    ours, theirs = await answer(owner, request()), await answer(remote_engine, request())

    assert text(ours) == text(theirs)
    assert theirs[-1].cached_tokens > 0  # one cache for all
    assert remote_engine.pid == owner.pid


async def test_command_ids_are_scoped_to_a_connection(owner, remote_engine):
    await remote_engine.ready()
    await owner.ready()

    one, other = await asyncio.gather(
        answer(owner, request("the cat", max_tokens=30)),
        answer(remote_engine, request("a house", max_tokens=30)),
    )

    assert text(one) == text(await answer(owner, request("the cat", max_tokens=30)))
    assert text(other) == text(await answer(owner, request("a house", max_tokens=30)))


async def test_closed_remote_engine_frees_its_slots(owner, settings):
    await owner.ready()
    async with EngineClient.for_remote_worker(settings) as remote_engine:
        await remote_engine.ready()
        generations = [
            await remote_engine.generate(request(name=str(number), max_tokens=None))
            for number in range(4)
        ]
        assert (await owner.status()).running == 4

    with pytest.raises(EngineDown, match="closed"):
        async for _ in generations[0]:
            pass
    while (status := await owner.status()).running:
        pass
    assert status.passes < 200  # each of them would have been at it for longer


async def test_remote_engine_reconnects_after_a_crash(owner, remote_engine):
    await remote_engine.ready()
    generation = await remote_engine.generate(request(max_tokens=None))
    await anext(generation)
    os.kill(owner.pid, signal.SIGKILL)

    with pytest.raises(EngineDown, match="restarted") as caught:
        async for _ in generation:
            pass

    assert caught.value.retry_after_s >= 1
    assert remote_engine.state == "restarting"
    assert await remote_engine.ready()
    assert await answer(remote_engine, request())


async def test_remote_engine_reports_a_failed_engine(tiny_llama, socket_path):
    command = (sys.executable, "-m", "tests.engine.crashing_worker", "always")
    settings = config(tiny_llama, socket_path=socket_path, command=command, restart_limit=0)
    async with (
        EngineClient(settings) as owner,
        EngineClient.for_remote_worker(settings) as remote_engine,
    ):
        with pytest.raises(EngineStartError, match="SIGSEGV"):
            await owner.ready()
        with pytest.raises(EngineStartError, match="has failed") as caught:
            await remote_engine.ready()

        assert remote_engine.state == "failed"
        assert caught.value.retry_after_s >= 1
    assert not socket_path.exists()


async def test_remote_engine_is_not_ready_from_the_moment_that_its_connection_ends(
    owner, remote_engine
):
    await remote_engine.ready()
    connection = remote_engine._lifecycle.connection()
    os.kill(owner.pid, signal.SIGKILL)
    while connection.is_open:  # noqa: ASYNC110 # no turn of the loop is to be missed
        await asyncio.sleep(0)

    assert remote_engine.state is EngineState.RESTARTING
    await remote_engine.ready()
    assert await answer(remote_engine, request())


async def test_remote_engine_reconnects_after_the_pause_of_a_failed_engine(tiny_llama, socket_path):
    settings = config(tiny_llama, socket_path=socket_path, restart_limit=0, restart_pause_s=2)
    async with (
        EngineClient(settings) as owner,
        EngineClient.for_remote_worker(settings) as remote_engine,
    ):
        await remote_engine.ready()
        os.kill(owner.pid, signal.SIGKILL)
        await eventually(lambda: owner.state == remote_engine.state == "failed")
        assert not socket_path.exists()

        await eventually(lambda: owner.state == remote_engine.state == "ready")
        assert await answer(remote_engine, request())


async def test_watchdog_detects_a_hang_with_remote_requests_only(tiny_llama, socket_path):
    settings = config(tiny_llama, socket_path=socket_path, hang_timeout_s=4)
    async with (
        EngineClient(settings) as owner,
        EngineClient.for_remote_worker(settings) as remote_engine,
    ):
        await remote_engine.ready()
        generation = await remote_engine.generate(request(max_tokens=None))
        os.kill(owner.pid, signal.SIGSTOP)

        with pytest.raises(EngineDown):
            async for _ in generation:
                pass
        await remote_engine.ready()
        assert await answer(remote_engine, request())


async def test_worker_ignores_shutdown_of_a_remote_client(owner, socket_path):
    await owner.ready()
    connection = await EngineConnection.connect(socket_path)
    assert isinstance(await connection.first(), Ready)
    connection.send(Shutdown())
    call = connection.call(Detokenize(id="1", tokens=[1]))
    running = asyncio.create_task(connection.wait_closed())

    assert await call.next()
    assert owner.state == "ready"
    connection.fail_calls(EngineDown("closed"))
    await running


async def test_socket_is_removed_when_the_engine_is_closed(owner, remote_engine, socket_path):
    await remote_engine.ready()
    await owner.close()

    await eventually(lambda: remote_engine.state == "failed")
    assert not socket_path.exists()


async def test_invalid_socket_path_is_an_error_at_start(tiny_llama, tmp_path):
    engine = EngineClient(config(tiny_llama, socket_path=tmp_path / ("long" * 30)))

    with pytest.raises(OSError, match="too long"):
        engine.start()


async def test_connections_beyond_the_limit_are_refused(tiny_llama, socket_path):
    async with EngineClient(
        config(tiny_llama, socket_path=socket_path, connections_limit=1)
    ) as owner:
        await owner.ready()
        _, first = await connect_client(socket_path)
        first_byte, refused = await connect_client(socket_path)
        first.close()
        await first.wait_closed()
        await owner.tokenize("the worker has taken note")
        another, last = await connect_client(socket_path)

    assert not first_byte
    assert another
    for writer in (refused, last):
        writer.close()


async def connect_client(socket_path: Path) -> tuple[bytes, asyncio.StreamWriter]:
    """Connects as a remote client; returns the first byte that it receives."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    return await reader.read(1), writer


async def test_poison_request_is_quarantined_in_every_process(tiny_llama, socket_path):
    command = (sys.executable, "-m", "tests.engine.crashing_worker", "word")
    settings = config(tiny_llama, socket_path=socket_path, command=command)
    async with (
        EngineClient(settings),
        EngineClient.for_remote_worker(settings) as one,
        EngineClient.for_remote_worker(settings) as other,
    ):
        for remote_engine, name in ((one, "first"), (other, "second")):
            await remote_engine.ready()
            with pytest.raises(EngineDown):
                await remote_engine.generate(request("a deadly prompt", name=name))

        for remote_engine in (one, other):
            refused = await refusal(remote_engine, request("a deadly prompt", name="third"))
            assert refused.failure is Failure.CRASHED
            assert (await remote_engine.status()).deaths == 2


async def refusal(engine: EngineClient, request: Generate) -> CommandFailed:
    """The engine's refusal, also if it learns only now that another's request ended the worker."""
    while True:
        await engine.ready()
        try:
            await engine.generate(request)
        except EngineDown:
            continue
        except CommandFailed as refused:
            return refused
        pytest.fail("The request was answered.")


async def test_poison_request_stays_one_after_a_lost_connection(tiny_llama, socket_path):
    settings = config(tiny_llama, socket_path=socket_path)
    command = request("a deadly prompt", max_tokens=None)
    async with (
        EngineClient(settings),
        EngineClient.for_remote_worker(settings) as remote_engine,
    ):
        lifecycle = remote_engine._lifecycle
        await remote_engine.ready()
        lifecycle.poison_requests.record_crash([CrashCandidate(command=command, weight=1)], 1)
        generation = await remote_engine.generate(command)
        lifecycle.connection()._transport.abort()
        with pytest.raises(EngineDown):
            async for _ in generation:
                pass
        await eventually(lambda: remote_engine.state is EngineState.RESTARTING)
        await remote_engine.ready()
        lifecycle.poison_requests.record_crash([CrashCandidate(command=command, weight=1)], 2)

        assert lifecycle.poison_requests.is_quarantined(command)


async def test_worker_is_restarted_where_its_crash_cannot_be_shared(
    owner, remote_engine, socket_path
):
    socket_path.with_suffix(".poison").mkdir()  # as without a free descriptor, it cannot be opened
    await remote_engine.ready()
    generation = await remote_engine.generate(request(max_tokens=None))
    os.kill(owner.pid, signal.SIGKILL)

    async with asyncio.timeout(30):
        with pytest.raises(EngineDown):
            async for _ in generation:
                pass
        await eventually(lambda: owner.state is EngineState.RESTARTING)
        await owner.ready()
        await remote_engine.ready()
    assert not owner.is_unsupervised


async def test_worker_killed_from_outside_quarantines_no_request(tiny_llama, socket_path):
    settings = config(tiny_llama, socket_path=socket_path, quarantine_weight=1)
    async with (
        EngineClient(settings) as owner,
        EngineClient.for_remote_worker(settings) as remote_engine,
    ):
        for _ in range(2):
            await owner.ready()
            await remote_engine.ready()
            generation = await remote_engine.generate(request("unlucky", max_tokens=None))
            os.kill(owner.pid, signal.SIGKILL)
            with pytest.raises(EngineDown):
                async for _ in generation:
                    pass
        await owner.ready()
        await remote_engine.ready()

        assert await answer(remote_engine, request("unlucky", max_tokens=None))
