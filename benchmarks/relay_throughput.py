"""The relay beside a bare Starlette + aiohttp pass-through, one run, one mock upstream.

    python benchmarks/relay_throughput.py --seconds 3 --rounds 3

Four processes: the mock upstream, the two relays (one uvicorn worker each), and this client. The
two are measured in turns within every round, so that a drifting machine moves both; what counts is
the ratio. Rates are medians over the rounds; latencies are over all requests of all rounds.
"""

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.pool import UpstreamPool
from llm_backend.controllers.relay.chat_observer import ChatObserver
from llm_backend.controllers.relay.relay import relay
from llm_backend.server.api_server import GC_THRESHOLD
from llm_backend.sse import DONE

EVENTS = 100
REQUEST = b'{"model":"mock","messages":[{"role":"user","content":"Say something."}]}'
STREAMED = REQUEST[:-1] + b',"stream":true}'
ANSWER = (
    b'{"id":"c%012d","object":"chat.completion","created":1,"model":"mock","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Something."},"finish_reason":"stop"}]}'
)
EVENT = (
    b'data: {"id":"c%012d","object":"chat.completion.chunk","created":1,"model":"mock","choices":'
    b'[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
)


class MockUpstream(asyncio.Protocol):
    """Answers a chat at once: one JSON body, or a hundred events in writes of their own; each with
    an id of its own."""

    _numbers = itertools.count()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._held = b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, end, body = self._held.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length or 0):
            return
        self._held = b""
        if b'"stream":true' not in body:
            self._send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
            answer = ANSWER % next(self._numbers)
            self._send(b"content-length: %d\r\n\r\n%b" % (len(answer), answer))
            return
        self._send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        self._send(b"transfer-encoding: chunked\r\n\r\n")
        asyncio.ensure_future(self._stream())  # noqa: RUF006 - ends with the process

    async def _stream(self) -> None:
        event = EVENT % next(self._numbers)
        for _ in range(EVENTS):
            self._send(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0)
        self._send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))

    def _send(self, data: bytes) -> None:
        self._transport.write(data)


def run_mock(listener: socket.socket) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(MockUpstream, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


def bare(base_url: str) -> ASGIApp:
    """Minimal gateway in Python: no checks, no header rules, no disconnects."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(auto_decompress=False) as app.state.session:
            yield

    async def handle(request: Request) -> StreamingResponse:
        session: aiohttp.ClientSession = request.app.state.session
        body = await request.body()
        answer = await session.post(
            base_url + "/chat/completions", data=body, headers={"content-type": "application/json"}
        )
        headers = {"content-type": answer.headers["content-type"]}
        return StreamingResponse(answer.content.iter_any(), answer.status, headers=headers)

    return Starlette(
        routes=[Route("/v1/chat/completions", handle, methods=["POST"])], lifespan=lifespan
    )


def ours(base_url: str, *, observed: bool = False) -> ASGIApp:
    """The relay's controller in the same frame."""
    # bodies are not parsed here
    unknown_fields = SimpleNamespace(report=lambda _operation_id, _body: [])
    services = SimpleNamespace(upstreams=None, unknown_fields=unknown_fields)
    operation = SimpleNamespace(operation_id="createChatCompletion", tag="Chat")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        upstream = Upstream(UpstreamConfig(base_url=base_url, api_key="key"))
        async with UpstreamPool([upstream]) as services.upstreams:
            yield

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        http = Request(scope, receive)
        request = SimpleNamespace(
            operation=operation,
            body=None,
            raw_body=await http.body(),
            http=http,
            caller=None,
            meter=None,
        )
        observer = ChatObserver() if observed else None
        response = await relay(services, request, observe=observer.feed if observer else None)
        await response(scope, receive, send)
        if observer is not None:
            assert observer.is_complete

    class App:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await handle(scope, receive, send)

    return Starlette(
        routes=[Route("/v1/chat/completions", App(), methods=["POST"])], lifespan=lifespan
    )


def ours_observed(base_url: str) -> ASGIApp:
    """The same, with every answer folded beside the stream."""
    return ours(base_url, observed=True)


def run_app(build: Callable[[str], ASGIApp], base_url: str, listener: socket.socket) -> None:
    gc.freeze()  # as the server does: else garbage collection of imported modules decides the p99
    gc.set_threshold(GC_THRESHOLD)
    config = uvicorn.Config(build(base_url), log_level="warning", access_log=False, ws="none")
    uvicorn.Server(config).run(sockets=[listener])


async def load(port: int, body: bytes, connections: int, seconds: float) -> list[float]:
    """Seconds of each request that these connections made one after another."""
    request = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer client\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def talk() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < until:
            writer.write(request)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
                # Closed between two requests, as servers may do: a client comes again.
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            assert head.startswith(b"HTTP/1.1 200"), head
            if b"chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
            took.append(time.perf_counter() - began)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(talk() for _ in range(connections)))
    return took


def measure(
    ports: dict[str, int], body: bytes, connections: int, options: argparse.Namespace
) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ports}
    times: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(options.rounds):
        for name, port in ports.items():
            took = asyncio.run(load(port, body, connections, options.seconds))
            rates[name].append(len(took) / options.seconds)
            times[name] += took
    kind = f"{EVENTS}-event streams" if body is STREAMED else "JSON"
    for name in ports:
        rate = statistics.median(rates[name])
        cuts = statistics.quantiles(times[name], n=100)
        against = rate / statistics.median(rates["bare"])
        print(
            f"{kind:>17}  {connections:>2} connections  {name:<14} {rate:>7.0f} requests/s  "
            f"{against:.2f} of bare  p50 {cuts[49] * 1000:.2f} ms  p99 {cuts[98] * 1000:.2f} ms"
        )


def listening() -> socket.socket:
    """A listener that names its protocol: asyncio leaves Nagle's delay on where none is named."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2, help="seconds per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turns")
    options = parser.parse_args()
    listeners = [listening() for _ in range(4)]
    port, *relay_ports = (listener.getsockname()[1] for listener in listeners)
    base_url = f"http://127.0.0.1:{port}/v1"
    builds = {"bare": bare, "ours": ours, "ours, observed": ours_observed}
    processes = [multiprocessing.Process(target=run_mock, args=(listeners[0],), daemon=True)]
    for build, listener in zip(builds.values(), listeners[1:], strict=True):
        arguments = (build, base_url, listener)
        processes.append(multiprocessing.Process(target=run_app, args=arguments, daemon=True))
    for process in processes:
        process.start()
    time.sleep(2)
    try:
        for body in (REQUEST, STREAMED):
            for connections in (1, 16):
                measure(dict(zip(builds, relay_ports, strict=True)), body, connections, options)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for listener in listeners:
            listener.close()


if __name__ == "__main__":
    main()
