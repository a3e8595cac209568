"""IPC of two processes: framing, bound of unread bytes, numbered requests, disconnects."""

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from llm_backend.ipc import (
    Channel,
    ClientSession,
    MessageConnection,
    MessageServer,
    PendingRequests,
)


class Echo(msgspec.Struct, tag=True):
    number: int
    text: str


class Wait(msgspec.Struct, tag=True):
    number: int


class Cancel(msgspec.Struct, tag=True):
    number: int


LIMIT_BYTES = 1 << 20
CHANNEL = Channel(
    decode=msgspec.json.Decoder(Echo | Wait | Cancel).decode, peer="other", limit_bytes=LIMIT_BYTES
)


class Session(ClientSession[Echo | Wait | Cancel, Echo | Cancel]):
    """Echoes `Echo`; `Wait` runs until it is cancelled, which is answered by `Cancel`."""

    is_closed = False

    def handle(self, message: Echo | Wait | Cancel) -> None:
        match message:
            case Echo():
                self.connection.send(message)
            case Wait(number=number):
                self.start_request(number, self._wait(number))
            case Cancel(number=number):
                self.cancel_request(number)

    def close(self) -> None:
        super().close()
        self.is_closed = True

    async def _wait(self, number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.connection.send(Cancel(number))


@pytest.fixture
def path() -> Iterator[Path]:
    """Socket path that is short enough."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder) / "test.sock"


@pytest_asyncio.fixture
async def server(path: Path) -> AsyncIterator[MessageServer]:
    async with MessageServer(path, CHANNEL, Session) as one:
        yield one


@pytest_asyncio.fixture
async def client(server: MessageServer, path: Path) -> AsyncIterator[MessageConnection]:
    async with AsyncExitStack() as stack:
        connection = await MessageConnection.connect(path, CHANNEL)
        stack.callback(connection.close)
        yield connection


async def eventually(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 - the other end of a socket has no event
            await asyncio.sleep(0.002)


async def test_messages_keep_their_order_and_their_line_breaks(client: MessageConnection) -> None:
    sent = [Echo(number, f"line {number}\nand the next") for number in range(3)]
    for message in sent:
        client.send(message)

    assert [await client.receive() for _ in sent] == sent


async def test_pair_of_sockets_carries_messages_until_one_end_closes() -> None:
    ends = [await MessageConnection.open(one, CHANNEL) for one in socket.socketpair()]
    ends[0].send(Echo(1, "there"))
    ends[1].send(Echo(2, "back"))

    assert [await one.receive() for one in ends] == [Echo(2, "back"), Echo(1, "there")]
    ends[0].close()
    assert await ends[1].receive() is None
    ends[1].close()


async def test_line_without_its_end_is_no_message(path: Path) -> None:
    async def cut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = msgspec.json.encode(Echo(1, "x"))
        writer.write(line + b"\n" + line)
        writer.close()

    async with await asyncio.start_unix_server(cut, path):
        connection = await MessageConnection.connect(path, CHANNEL)

        assert await connection.receive() == Echo(1, "x")
        assert await connection.receive() is None
        connection.close()


async def test_peer_that_reads_nothing_is_disconnected_within_the_bound(
    server: MessageServer, client: MessageConnection, caplog: pytest.LogCaptureFixture
) -> None:
    await eventually(lambda: bool(server.sessions))
    (session,) = server.sessions
    client._reader._transport.pause_reading()  # type: ignore[attr-defined]  # a private one
    most = 0
    for number in range(40):
        server.send_to_all(Echo(number, "x" * (LIMIT_BYTES // 8)))
        most = max(most, session.connection.unread_bytes)
    await eventually(lambda: not server.sessions)

    assert LIMIT_BYTES < most <= LIMIT_BYTES * 9 // 8 + 100
    assert session.is_closed
    (record,) = [one for one in caplog.records if one.message == "ipc_peer_stuck"]
    assert vars(record)["peer"] == "other"


async def test_client_cancels_its_request_by_number(client: MessageConnection) -> None:
    for message in (Wait(1), Wait(2), Echo(0, "read")):
        client.send(message)
    assert await client.receive() == Echo(0, "read")

    client.send(Cancel(3))
    client.send(Cancel(2))
    assert await client.receive() == Cancel(2)


async def test_session_ends_with_its_connection_or_its_server(
    path: Path, client: MessageConnection
) -> None:
    async with MessageServer(path.with_name("other"), CHANNEL, Session) as other:
        first = await MessageConnection.connect(path.with_name("other"), CHANNEL)
        second = await MessageConnection.connect(path.with_name("other"), CHANNEL)
        await eventually(lambda: len(other.sessions) == 2)
        sessions = set(other.sessions)
        first.close()
        await eventually(lambda: len(other.sessions) == 1)
    assert await second.receive() is None
    second.close()

    assert all(session.is_closed for session in sessions)
    assert not other.sessions


async def test_pending_request_gets_its_answer_or_its_error() -> None:
    requests: PendingRequests[str] = PendingRequests()
    first, second = requests.begin(), requests.begin()
    waiting = [asyncio.create_task(requests.wait(number)) for number in (first, second)]

    assert requests.answer(second, "yes")
    assert not requests.answer(second, "twice")
    requests.fail(first, ValueError("no"))
    requests.fail(99, ValueError("unknown"))

    assert await waiting[1] == "yes"
    with pytest.raises(ValueError, match="no"):
        await waiting[0]
    assert not requests


async def test_answer_of_a_cancelled_request_is_released() -> None:
    released: list[str] = []
    requests = PendingRequests(released.append)
    number = requests.begin()
    waiting = asyncio.create_task(requests.wait(number))
    await asyncio.sleep(0)

    requests.answer(number, "granted")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert released == ["granted"]
    assert not requests.answer(number, "late")


async def test_disconnect_fails_pending_requests_and_later_ones() -> None:
    requests: PendingRequests[str] = PendingRequests()
    waiting = asyncio.create_task(requests.wait(requests.begin()))
    await asyncio.sleep(0)
    requests.disconnect(ConnectionResetError)

    with pytest.raises(ConnectionResetError):
        await waiting
    with pytest.raises(ConnectionResetError):
        requests.begin()


@pytest.mark.parametrize(
    "line", [b"no JSON\n", b'{"type":"Other"}\n', b"x" * (LIMIT_BYTES + 2) + b"\n"],
    ids=["no JSON", "unknown message", "too long"],
)  # fmt: skip
async def test_connection_ends_at_a_line_that_is_no_message(path, server, caplog, line):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(line)

    async with asyncio.timeout(30):
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await reader.read()
    writer.close()

    assert rest == b""
    assert "ipc_message_invalid" in caplog.text
    assert not server.sessions
