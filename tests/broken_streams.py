"""Answers that break off: a scripted upstream, and a proxy that breaks its events somewhere."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

__all__ = ["Break", "BreakingProxy", "breaking_proxy", "scripted_upstream"]

How = Literal["cut", "close", "stall", "504", "kill", "timeout"]

_CHAT = b"POST /v1/chat/completions"
_GATEWAY_TIMEOUT = (
    b"HTTP/1.1 504 Gateway Timeout\r\ncontent-type: text/html\r\ncontent-length: 11\r\n"
    b"connection: close\r\n\r\n<h1>504</h1"
)


@dataclass(frozen=True, kw_only=True)
class Break:
    """Break of the next chat's answer: `cut` resets the connection, `close` ends the body as if it
    were whole, `stall` sends no more, `504` is a proxy's own answer. `kill` closes all connections
    as the death of the server does, and refuses others until `is_down` is False again. `timeout`
    sends no more, and closes the connection once the test has called `see`; before the head with a
    504.

    `after` is a text in the answer; the answer is passed on to the end of the event with this text.
    The connection breaks once the test has called `see`, because browsers drop what they had no
    time to read. With an empty `after` it breaks after the answer's head, with None before it.
    """

    how: How
    after: bytes | None


@dataclass(kw_only=True)
class BreakingProxy:
    """Passes connections on to a port; each next chat gets the next of `breaks`."""

    port: int
    to: int
    breaks: list[Break] = field(default_factory=list)
    latest: "_Connection | None" = None  # of those whose answer breaks
    is_down: bool = False
    _connections: list["_Connection"] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def accept(self, listener: socket.socket) -> None:
        """Serves connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                if self.is_down:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self.to))
                except ConnectionRefusedError:
                    client.close()
                else:
                    self._connections.append(_Connection(self, client, server))

    def see(self) -> None:
        """Lets the latest answer break, whose part before the break the page has shown."""
        assert self.latest is not None, "no answer breaks"
        self.latest.seen.set()

    def kill(self, latest: "_Connection") -> None:
        """Closes all connections, the latest as it breaks, and those to come."""
        self.is_down = True
        for one in self._connections:
            if one is not latest:
                one.shut()

    def close(self) -> None:
        """Closes all connections."""
        for one in self._connections:
            one.close()


class _Connection:
    """Connection of a client, and the one to the server behind it."""

    def __init__(self, proxy: BreakingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._break: Break | None = None
        self._passed = b""
        self.seen = threading.Event()
        self._threads = [
            threading.Thread(target=pump, daemon=True)
            for pump in (self._pass_requests, self._pass_answers)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends both directions."""
        self.seen.set()  # a test that has failed lets no answer break
        self.shut()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def shut(self) -> None:
        """Has both directions end, without waiting for it."""
        for one in (self._client, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pass_requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                if data.startswith(_CHAT) and self._proxy.breaks:
                    self._break, self._proxy.latest = self._proxy.breaks.pop(0), self
                self._server.sendall(data)
            self._server.shutdown(socket.SHUT_RDWR)  # the client has gone: so does its request

    def _pass_answers(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(65536):
                if self._break is None:
                    self._client.sendall(data)
                elif self._send_until_break(self._break, data):
                    return
            self._client.shutdown(socket.SHUT_RDWR)

    def _send_until_break(self, to_do: Break, data: bytes) -> bool:
        """Passes the part of an answer before its break on; returns True once it is broken."""
        self._passed += data
        end = _end_of_rest(self._passed, to_do.after)
        if end is None:
            return False
        head, _, body = self._passed[:end].partition(b"\r\n\r\n")
        if to_do.after is not None:
            text = _dechunked(body)
            chunk = f"{len(text):x}\r\n".encode() + text + b"\r\n" if text else b""
            self._client.sendall(head + b"\r\n\r\n" + chunk)
        if to_do.how == "timeout" or (to_do.after and to_do.how != "stall"):
            self.seen.wait()
        self._break_off(to_do)
        return True

    def _break_off(self, to_do: Break) -> None:
        how = to_do.how
        if how == "kill":
            self._proxy.kill(self)
        if how == "504" or (how == "timeout" and to_do.after is None):
            self._client.sendall(_GATEWAY_TIMEOUT)
        if how == "close":
            self._client.sendall(b"0\r\n\r\n")
        if how == "cut":
            reset = struct.pack("ii", 1, 0)
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        if how != "stall":
            self._server.shutdown(socket.SHUT_RDWR)
            self._client.shutdown(socket.SHUT_RD)  # the other thread reads from it no more
            self._client.close()


def _end_of_rest(passed: bytes, after: bytes | None) -> int | None:
    """Returns the index at which an answer breaks; None if that part has not arrived."""
    if after is None:
        return 0
    start = passed.find(b"\r\n\r\n") + 4
    if start < 4 or not after:
        return start if start >= 4 else None
    place = passed.find(after, start)
    end = passed.find(b"\n\n", place)
    return None if place < 0 or end < 0 else end + 2


def _dechunked(body: bytes) -> bytes:
    """Returns the text of chunks, of which the last may be cut."""
    text = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        text, body = text + rest[:length], rest[length + 2 :]
    return text


@contextlib.contextmanager
def breaking_proxy(to: int) -> Iterator[BreakingProxy]:
    """A proxy in front of this port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = BreakingProxy(port=listener.getsockname()[1], to=to)
        threading.Thread(target=proxy.accept, args=(listener,), daemon=True).start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
    proxy.close()


Answer = Sequence[dict[str, Any] | None]
"""Deltas of an answer; at None it waits until its client has gone."""


@contextlib.contextmanager
def scripted_upstream(answers: Mapping[str, Answer]) -> Iterator[int]:
    """The port of an upstream with one model, `far`, that answers by the first of these words that
    is in the last message."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            model = {"id": "far", "object": "model", "created": 1, "owned_by": "far"}
            self._begin("application/json")
            self._send(json.dumps({"object": "list", "data": [model]}).encode())
            self.wfile.write(b"0\r\n\r\n")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            said = str(body["messages"][-1]["content"])
            deltas = next(answers[word] for word in answers if word in said)
            self._begin("text/event-stream")
            for text in _events(deltas):
                if text is None:
                    self.rfile.read(1)  # the client sends no more, and goes at some time
                    self.close_connection = True
                    return
                self._send(text)
            self.wfile.write(b"0\r\n\r\n")

        def _begin(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()

        def _send(self, text: bytes) -> None:
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


_ids = iter(range(1, 10_000))


def _events(deltas: Answer) -> Iterator[bytes | None]:
    common = {
        "id": f"chatcmpl-{next(_ids)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": "far",
    }
    for delta in (*deltas, {}):
        if delta is None:
            yield None
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        yield b"data: " + json.dumps({**common, "choices": [choice]}).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"
