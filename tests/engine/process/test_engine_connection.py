"""The two ends of a connection, without processes."""

import asyncio
import contextlib
import gc
import resource
import socket
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.errors import EngineDown
from llm_backend.engine.messages import (
    Cancel,
    Delta,
    Embed,
    Embedded,
    FinishReason,
    NotReady,
    Queued,
    SlotAssigned,
    Tokenized,
)
from llm_backend.engine.messages.framing import FrameError, FrameReader, events_in, frame, frames
from llm_backend.engine.process.connection_server import ConnectionServer
from llm_backend.engine.process.engine_connection import Call, EngineConnection
from llm_backend.engine.process.lifecycle import EngineLifecycle, EngineState
from llm_backend.engine.process.socket_path import open_socket
from tests.engine.fakes import generate


def delta(text: str, index: int = 0, finish: FinishReason | None = None) -> Delta:
    return Delta(id="1", index=index, text=text, completion_tokens=1, finish_reason=finish)


async def connected() -> tuple[EngineConnection, ConnectionServer]:
    ours, theirs = socket.socketpair()
    connections = ConnectionServer()
    connections.add(theirs)
    return await EngineConnection.from_socket(ours), connections


@pytest.mark.parametrize("size", [1, 7, 50, 1000])
def test_frame_reader_splits_frames_at_any_chunking(size):
    data = frame([SlotAssigned(id="1", prompt_tokens=3)]) + frame([delta("a"), delta("b")])
    reader, offsets = FrameReader(), range(0, len(data), size)
    bodies = [body for offset in offsets for body in reader.feed(data[offset : offset + size])]

    assert [len(events_in(body)) for body in bodies] == [1, 2]


def test_frame_reader_reads_a_single_frame():
    reader, data = FrameReader(), frame([delta("a"), delta("b")])
    bodies = [body for _ in range(3) for body in reader.feed(data)]

    assert [len(events_in(body)) for body in bodies] == [2, 2, 2]


def test_frame_reader_refuses_invalid_frames():
    with pytest.raises(FrameError):
        list(FrameReader().feed(b"GET / HTTP/1.1"))
    with pytest.raises(FrameError):
        events_in(b"nonsense")


async def test_call_joins_unread_deltas_by_choice():
    call = Call(generate(n=2))
    call.add_event(SlotAssigned(id="1", prompt_tokens=3))
    for number in range(1000):
        call.add_event(delta("ab", index=number % 2))
    call.add_event(delta("!", finish=FinishReason.STOP))

    assert isinstance(await call.next(), SlotAssigned)
    first, second = await call.next(), await call.next()
    assert (first.text, first.finish_reason) == ("ab" * 500 + "!", FinishReason.STOP)
    assert (second.text, second.finish_reason) == ("ab" * 500, None)
    assert not call.is_complete


async def test_call_that_was_lost_is_freed_with_its_error():
    call = Call(generate([1]))
    call.fail(EngineDown("it died", 3.0))
    freed = weakref.ref(call)
    gc.disable()
    try:
        try:
            await call.next()
        except EngineDown as error:
            told = (str(error), error.retry_after_s)
        del call

        assert told == ("it died", 3.0)
        assert freed() is None
    finally:
        gc.enable()


async def test_call_returns_events_before_the_crash_error():
    call = Call(generate())
    call.add_event(delta("a"))
    call.fail(EngineDown("dead"))

    assert (await call.next()).text == "a"
    with pytest.raises(EngineDown):
        await call.next()


async def test_connection_closes_at_an_invalid_first_frame():
    ours, theirs = socket.socketpair()
    connection = await EngineConnection.from_socket(ours)
    theirs.sendall(b"HTTP/1.1 400 Bad Request")

    assert await connection.first() is None
    connection.fail_calls(EngineDown("closed"))
    theirs.close()


async def test_end_call_cancels_unfinished_commands_only():
    connection, connections = await connected()
    cancelled = connection.call(generate(id="left"))
    connection.end_call(cancelled)
    connection.end_call(cancelled)
    await asyncio.sleep(0)

    assert [item.command for item in connections.poll(1)] == [cancelled.command, Cancel(id="left")]
    connection.fail_calls(EngineDown("closed"))
    connections.drop(1)


async def crash_weights(
    *sent: str, queued: str = "", assigned: str = "", with_delta: str = "", with_grammar: str = ""
) -> dict[str, float]:
    """Weights of the crash candidates when a worker dies with these commands pending; those
    `with_grammar` follow a grammar."""
    connection, connections = await connected()
    for name in sent:
        connection.call(generate(id=name, grammar="start: /a/" if name in with_grammar else None))
    events = [Queued(id=name) for name in queued + assigned + with_delta]
    events += [SlotAssigned(id=name, prompt_tokens=1) for name in assigned + with_delta]
    events += [Delta(id=name, index=0, text="a", completion_tokens=1) for name in with_delta]
    connections.send(1, events)
    connections.drop(1)
    await connection.wait_closed()
    candidates = connection.crash_candidates()
    connection.fail_calls(EngineDown("dead"))
    return {one.command.id: one.weight for one in candidates}


async def test_crash_candidates_omit_queued_commands():
    assert await crash_weights(*"abcd", queued="cd", assigned="ab") == {"a": 1, "b": 1}


async def test_crash_candidates_with_deltas_have_less_weight():
    assert await crash_weights(*"abc", queued="c", assigned="b", with_delta="a") == {
        "a": 0.5,
        "b": 1,
    }
    assert await crash_weights(*"abc", queued="c", with_delta="ab") == {"a": 1, "b": 1}


async def test_crash_candidates_include_the_oldest_sent_command_only():
    assert await crash_weights(*"abcd", with_delta="a", queued="b") == {"a": 0.5, "c": 1}


async def test_crash_candidates_include_commands_with_a_grammar():
    assert await crash_weights(*"abc", queued="bc", assigned="a", with_grammar="c") == {
        "a": 1,
        "c": 0.5,
    }


async def test_crash_candidates_are_the_first_queued_command_if_there_is_no_other():
    assert await crash_weights(*"ab", queued="ab") == {"a": 1}


async def test_call_of_an_embedding_has_no_slot_event():
    call = Call(Embed(id="1", inputs=["a"]))
    for event in (Queued(id="1"), SlotAssigned(id="1", prompt_tokens=1)):
        call.add_event(event)
    assert not call.is_complete

    call.add_event(Tokenized(id="1", tokens=[]))

    assert isinstance(await call.next(), Tokenized)


@contextlib.contextmanager
def connected_client(folder: Path) -> Iterator[tuple[ConnectionServer, socket.socket]]:
    """A connection server, and a remote client that has not read anything yet."""
    connections = ConnectionServer()
    remote_engine = socket.socket(socket.AF_UNIX)
    with open_socket(folder / "s") as sock, remote_engine:
        connections.listen(sock, first_event=NotReady(message="Welcome!"), limit=1)
        remote_engine.connect(str(folder / "s"))
        connections.poll(1)
        yield connections, remote_engine
        connections.drop(1)


LARGE = [Tokenized(id="1", tokens=[1_000_000] * 100_000)]


def test_connection_server_disconnects_a_client_that_does_not_read(tmp_path):
    with connected_client(tmp_path) as (connections, _):
        connections.outbox_bytes, connections.stall_s = 1000, 0
        for _ in range(4):
            connections.send(1, LARGE)

        assert [item.command for item in connections.poll(1)] == [None]
        connections.send(1, [delta("unread")])


def test_connection_server_serves_a_slow_client(tmp_path):
    with connected_client(tmp_path) as (connections, remote_engine):
        connections.outbox_bytes, connections.stall_s = 1000, 0
        for _ in range(50):
            connections.send(1, LARGE)
            remote_engine.recv(1 << 20)

        assert connections.poll(0) == []


def test_connection_server_gives_a_client_time_for_a_large_event(tmp_path):
    with connected_client(tmp_path) as (connections, _):
        connections.outbox_bytes = 1000
        for _ in range(4):
            connections.send(1, LARGE)

        assert connections.poll(0) == []


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open already stays so
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connection_server_pauses_accepting_without_descriptors(tmp_path):
    connections, remote_engine = ConnectionServer(), socket.socket(socket.AF_UNIX)
    connections.accept_pause_s = 0.2
    with open_socket(tmp_path / "s") as sock, remote_engine:
        connections.listen(sock, first_event=NotReady(message="Welcome!"), limit=1)
        remote_engine.connect(str(tmp_path / "s"))
        started_at = time.monotonic()
        with no_descriptor_left():
            connections.poll(1)
            connections.poll(0.1)
        elapsed_s = time.monotonic() - started_at
        connections.poll(None)  # the listening socket is polled again after its pause
        connections.poll(1)
        remote_engine.settimeout(60)
        first_byte = remote_engine.recv(1)
        connections.drop(1)

    assert elapsed_s >= 0.1
    assert first_byte


async def test_connection_server_never_disconnects_the_owner():
    connection, connections = await connected()
    connections.outbox_bytes, connections.stall_s = 1000, 0
    for _ in range(4):
        connections.send(1, LARGE)

    assert connections.poll(0) == []
    connection.fail_calls(EngineDown("closed"))
    connections.drop(1)


def test_connection_server_splits_large_events_into_frames():
    answers = [
        Embedded(id=str(number), vectors=bytes(9 << 20), embedding_size=1, prompt_tokens=1)
        for number in range(5)
    ]
    reader = FrameReader()
    bodies = [body for data in frames(answers) for body in reader.feed(data)]

    assert [event for body in bodies for event in events_in(body)] == answers
    assert len(bodies) == 5
    assert len(list(frames([delta("a")] * 100))) == 1


async def test_connection_server_sends_the_rest_later():
    connection, connections = await connected()
    connections.outbox_bytes = 1 << 30
    call = connection.call(generate(id="1"))
    connections.poll(1)
    running = asyncio.create_task(connection.wait_closed())
    for _ in range(50):
        connections.send(1, [delta("x" * 100_000)])
    connections.send(1, [delta("", finish=FinishReason.STOP)])
    while not call.is_complete:
        connections.poll(0)
        await asyncio.sleep(0)

    assert len((await call.next()).text) == 5_000_000
    connection.fail_calls(EngineDown("closed"))
    connections.drop(1)
    await running


async def test_connection_that_has_ended_accepts_no_command(tmp_path):
    """Before the lifecycle has handled the end: a write would be an error of the event loop."""
    connection, connections = await connected()
    lifecycle = EngineLifecycle(EngineConfig(model_path=tmp_path))
    lifecycle._set_state(EngineState.READY, "")
    lifecycle._connection = connection
    assert lifecycle.connection() is connection
    connections.drop(1)
    await connection.wait_closed()

    with pytest.raises(EngineDown, match="restarted") as caught:
        lifecycle.connection()
    assert caught.value.retry_after_s
