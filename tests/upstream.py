"""A fake upstream on a free port, a relay served in front of it, and a client that counts bytes."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import uvicorn
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.pool import UpstreamPool
from llm_backend.controllers.relay.relay import relay
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, ClientGone
from tests.patience import comes_true

Pairs = list[tuple[bytes, bytes]]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One HTTP message as it stood on the wire; `is_whole` where its body came to its end."""

    first_line: bytes
    headers: Pairs
    body: bytes = b""
    is_whole: bool = True

    @property
    def status(self) -> int:
        return int(self.first_line.split()[1])

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass(kw_only=True)
class Connection:
    """One connection's two ends, and what was read from it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Message:
        raw = await self.reader.readuntil(b"\r\n\r\n")
        first_line, *lines = raw[:-4].split(b"\r\n")
        pairs = [line.partition(b":") for line in lines]
        return Message(
            first_line=first_line, headers=[(name, value.strip(b" \t")) for name, _, value in pairs]
        )

    async def piece(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def message(self) -> Message:
        """A whole message, or what came of it."""
        head = await self.head()
        body, is_whole = bytearray(), True
        try:
            if head.values(b"transfer-encoding"):
                while piece := await self.piece():
                    body += piece
            elif length := head.values(b"content-length"):
                body += await self.reader.readexactly(int(length[0]))
            elif head.first_line.startswith(b"HTTP/") and head.status not in (204, 304):
                body += await self.reader.read()
        except asyncio.IncompleteReadError as error:
            body += error.partial
            is_whole = False
        return Message(
            first_line=head.first_line, headers=head.headers, body=bytes(body), is_whole=is_whole
        )

    async def is_gone(self, within_s: float = 0.2) -> bool:
        """True if the other side closes within this time of the loop; drops received bytes."""
        reading = asyncio.create_task(self._read_over())
        try:
            return await comes_true(reading.done, within_s=within_s)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_over(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def cut(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class NothingUnfamiliar:
    """Knows every field."""

    def report(self, _operation_id: str, _body: object) -> list[tuple[bytes, bytes]]:
        return []


Script = Callable[[Message, Connection], Awaitable[None]]


@dataclass(kw_only=True)
class FakeUpstream:
    """Answers every request with `answer`: raw bytes, or a script that talks on the connection.

    `reads_bodies=False` leaves a request's body to the script.
    """

    answer: bytes | Script = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    reads_bodies: bool = True
    requests: list[Message] = field(default_factory=list)
    port: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(reader=reader, writer=writer)
        try:
            # Cancelled only by the end of the test, which asyncio's streams would report as a bug.
            with contextlib.suppress(
                asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError
            ):
                while not writer.is_closing():
                    await self._turn(connection)
        finally:
            self._tasks.discard(task)
            await connection.close()

    async def _turn(self, connection: Connection) -> None:
        request = await (connection.message() if self.reads_bodies else connection.head())
        self.requests.append(request)
        if isinstance(self.answer, bytes):
            await connection.send(self.answer)
            if b"\r\ncontent-length:" in self.answer or b"chunked" in self.answer:
                return
        else:
            await self.answer(request, connection)
        connection.writer.close()


@dataclass(kw_only=True)
class Relay:
    """A served relay: its port, what its observer was told, and how often `finish` was awaited."""

    port: int = 0
    observed: bytearray | None = None
    finished: int = 0
    on_finish: Callable[[], Awaitable[object]] | None = None

    async def finish(self) -> None:
        if self.on_finish is not None:
            await self.on_finish()
        self.finished += 1

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**22)
        connection = Connection(reader=reader, writer=writer)
        try:
            yield connection
        finally:
            await connection.close()

    async def ask(self, request: bytes) -> Message:
        async with self.client() as client:
            await client.send(request)
            return await client.message()


def post(body: bytes = b"{}", *, path: str = "/v1/chat/completions", more: bytes = b"") -> bytes:
    """A request with a JSON body as raw bytes."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n".encode()
        + more
        + b"\r\n"
        + body
    )


@contextlib.asynccontextmanager
async def relaying(
    upstream: UpstreamPool | None, *, observes: bool = False
) -> AsyncIterator[Relay]:
    """The relay's controller under uvicorn, with as little around it as it needs."""
    state = Relay(observed=bytearray() if observes else None)
    services = SimpleNamespace(upstreams=upstream, unknown_fields=NothingUnfamiliar())

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        http = HttpRequest(scope, receive)
        is_json = http.headers.get("content-type") == "application/json"
        request = SimpleNamespace(
            meter=None,
            operation=SimpleNamespace(operation_id="createChatCompletion", tag="Chat"),
            body=None,
            raw_body=await http.body() if is_json else b"",
            http=http,
            caller=None,
        )
        observe = None if state.observed is None else state.observed.extend
        try:
            response: Response = await relay(
                services, request, observe=observe, finish=state.finish
            )
        except ApiError as error:
            response = JSONResponse(error_body(error), error.status)
        except ClientGone:
            return
        await response(scope, receive, send)

    async with serving(app) as port:
        state.port = port
        yield state


@contextlib.asynccontextmanager
async def serving(app: Any, *, ws: str = "none") -> AsyncIterator[int]:
    """Any ASGI app under uvicorn on a free port."""
    config = uvicorn.Config(
        app, lifespan="off", ws=ws, log_config=None, server_header=False, date_header=False
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.startup(sockets=[listener])
    try:
        yield listener.getsockname()[1]
    finally:
        await _stop(server)


async def _stop(server: uvicorn.Server) -> None:
    """Stops as a server that is forced to, without the tenths of a second that uvicorn sleeps if
    nothing is left to wait for."""
    state = server.server_state
    for one in server.servers:
        one.close()
    for connection in list(state.connections):
        connection.shutdown()
    await comes_true(lambda: not (state.connections or state.tasks), within_s=0.1)


@contextlib.asynccontextmanager
async def relayed_to(
    fake: FakeUpstream, *, observes: bool = False, **settings: Any
) -> AsyncIterator[Relay]:
    """A served relay in front of this fake upstream."""
    async with (
        fake,
        UpstreamPool([upstream_of(fake, **settings)]) as upstream,
        relaying(upstream, observes=observes) as served,
    ):
        yield served


def upstream_of(fake: FakeUpstream, **settings: Any) -> Upstream:
    config = {"base_url": fake.base_url, "api_key": "server-key", **settings}
    return Upstream(UpstreamConfig(**config))


@contextlib.contextmanager
def served_in_thread(app: Any) -> Iterator[int]:
    """Any ASGI app under uvicorn on a free port, in a thread with a loop of its own."""
    ported: Future[int] = Future()
    ending = threading.Event()

    async def run() -> None:
        async with serving(app) as port:
            ported.set_result(port)
            await asyncio.to_thread(ending.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield ported.result()
    finally:
        ending.set()
        thread.join()
