"""WebSockets go to an upstream and back, message by message."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from llm_backend.app import App
from llm_backend.settings import load_settings
from tests.patience import comes_true
from tests.upstream import Connection, FakeUpstream, Message, serving

WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
EMPTY_CLOSE = b"\x88\x00"


class FarSocket:
    """A realtime upstream: says what it was asked, then answers each message as `answer` does."""

    def __init__(self) -> None:
        self.opened: list[WebSocket] = []
        self.got: list[str | bytes] = []
        self.left = asyncio.Event()
        self.code: int | None = None
        self.refuses: int | None = None
        self.greeting: str | None = None
        self.refused_models: dict[str, int] = {}  # and with which status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return
        socket = WebSocket(scope, receive, send)
        refusal = self.refused_models.get(socket.query_params.get("model", ""), self.refuses)
        if refusal is not None:
            await send({"type": "websocket.http.response.start", "status": refusal,
                        "headers": []})  # fmt: skip
            await send({"type": "websocket.http.response.body", "body": b""})
            return
        self.opened.append(socket)
        protocols = scope["subprotocols"]
        await socket.accept(protocols[0] if protocols else None)
        if self.greeting is not None:
            await socket.send_text(self.greeting)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await self._echo(socket)
        self.left.set()

    async def _echo(self, socket: WebSocket) -> None:
        event = await socket.receive()
        if event["type"] == "websocket.disconnect":
            self.code = event["code"]
            raise WebSocketDisconnect
        message = event["bytes"] if event.get("text") is None else event["text"]
        self.got.append(message)
        if message == "leave":
            await socket.close(4321, "enough")
        elif isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)


@contextlib.asynccontextmanager
async def relayed_sockets(tmp_path, **more: Any) -> AsyncIterator[tuple[FarSocket, str]]:
    far = FarSocket()
    async with (
        serving(far, ws="auto") as far_port,
        relayed_to(f"http://127.0.0.1:{far_port}/v1", tmp_path, **more) as url,
    ):
        yield far, url


@contextlib.asynccontextmanager
async def relayed_to(base_url: str, tmp_path, **more: Any) -> AsyncIterator[str]:
    backends = [{"name": "far", "base_url": base_url, "api_key": "k"}]
    settings = {"models": (), "data_dir": tmp_path, "backends": backends, **more}
    app = App(load_settings(settings))
    async with app.open(), serving(app, ws="auto") as port:
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.asynccontextmanager
async def connected(url: str, **more: Any) -> AsyncIterator[ClientWebSocketResponse]:
    async with ClientSession() as session, session.ws_connect(url, **more) as socket:
        yield socket


async def test_messages_pass_as_they_are_both_ways(tmp_path):
    messages = ['{"type":"x", "a":1.50}', "ü" * 1000, "", b"\x00\xff" * 500]

    async with (
        relayed_sockets(tmp_path) as (far, url),
        connected(f"{url}/realtime?model=gpt-realtime") as socket,
    ):
        for message in messages:
            await (socket.send_str if isinstance(message, str) else socket.send_bytes)(message)
        back = [(await socket.receive()).data for _ in messages]

    assert back == far.got == messages


async def test_the_upstream_gets_its_own_key_and_the_clients_headers(tmp_path):
    protocols = ["realtime", "openai-insecure-api-key.mine"]
    async with (
        relayed_sockets(tmp_path, api_keys=("mine",)) as (far, url),
        connected(
            f"{url}/realtime?intent=transcription", protocols=protocols,
            headers={"OpenAI-Safety-Identifier": "someone"},
        ) as socket,
    ):  # fmt: skip
        chosen = socket.protocol

    asked = far.opened[0]
    assert chosen == "realtime"
    assert asked.url.path == "/v1/realtime"
    assert asked.url.query == "intent=transcription"
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.headers["openai-safety-identifier"] == "someone"
    assert asked.scope["subprotocols"] == ["realtime"]


async def test_a_route_exchanges_the_models_name(tmp_path):
    routes = {"voice": "gpt-realtime"}
    async with (
        relayed_sockets(tmp_path, routes=routes) as (far, url),
        connected(f"{url}/realtime?a=%20&model=voice"),
    ):
        pass

    assert far.opened[0].scope["query_string"] == b"a=%20&model=gpt-realtime"


async def test_a_route_of_sockets_falls_back(tmp_path, capsys):
    async with relayed_sockets(tmp_path, routes={"voice": "busy, free"}) as (far, url):
        far.refused_models = {"busy": 429}
        async with connected(f"{url}/realtime?model=voice"):
            pass

    assert far.opened[0].scope["query_string"] == b"model=free"
    assert "fell_back model=busy code=rate_limit_exceeded" in capsys.readouterr().err


async def test_the_upstreams_goodbye_reaches_the_client(tmp_path):
    async with (
        relayed_sockets(tmp_path) as (_, url),
        connected(f"{url}/realtime?model=m") as socket,
    ):
        await socket.send_str("leave")
        last = await socket.receive()

    assert (last.type, last.data, last.extra) == (WSMsgType.CLOSE, 4321, "enough")


async def close_without_a_status(request: Message, connection: Connection) -> None:
    (key,) = request.values(b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + WEBSOCKET_GUID).digest())
    await connection.send(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n" + EMPTY_CLOSE
    )
    await connection.is_gone(within_s=60)


async def test_an_upstreams_close_without_a_status_is_a_normal_one_for_the_client(tmp_path):
    async with (
        FakeUpstream(answer=close_without_a_status) as far,
        relayed_to(far.base_url, tmp_path) as url,
        connected(f"{far.base_url}/realtime") as direct,
        connected(f"{url}/realtime?model=m") as socket,
    ):
        sent, last = await direct.receive(), await socket.receive()

    assert (sent.type, sent.data) == (WSMsgType.CLOSE, 0)
    assert (last.type, last.data) == (WSMsgType.CLOSE, 1000)


async def test_a_client_that_vanishes_frees_the_upstream(tmp_path):
    async with (
        relayed_sockets(tmp_path) as (far, url),
        connected(f"{url}/realtime?model=m") as socket,
    ):
        await socket.send_str("x")
        await socket.receive()
        socket._response.connection.transport.abort()
        assert await comes_true(far.left.is_set, within_s=60)


@pytest.mark.parametrize(
    ("path", "headers", "settings", "status", "code"),
    [
        ("/realtime?model=m", {}, {"api_keys": ("mine",)}, 401, "invalid_api_key"),
        ("/nowhere", {}, {}, 404, "unknown_url"),
        ("/realtime?model=m", {"origin": "https://evil.test"}, {}, 403, "origin_not_allowed"),
        ("/realtime?model=m", {"origin": "http://["}, {}, 403, "origin_not_allowed"),
        ("/realtime?model=m", {"host": "evil.test"}, {}, 403, "host_not_allowed"),
        ("/realtime?model=m&mod%65l=n", {}, {}, 400, "invalid_value"),
    ],
)
async def test_refused_sockets_get_a_status_instead_of_a_handshake(
    tmp_path, path, headers, settings, status, code
):
    async with relayed_sockets(tmp_path, **settings) as (far, url), ClientSession() as session:
        answer = await session.get(
            url + path, headers={"connection": "upgrade", "upgrade": "websocket",
            "sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
            **headers},
        )  # fmt: skip
        said = await answer.text()

    assert answer.status == status
    assert json.loads(said)["error"]["code"] == code
    assert far.opened == []


@pytest.mark.parametrize(("refusal", "status"), [(401, 502), (404, 404), (500, 502)])
async def test_an_upstreams_refusal_is_the_clients(tmp_path, refusal: int, status: int):
    async with relayed_sockets(tmp_path) as (far, url):
        far.refuses = refusal
        with pytest.raises(WSServerHandshakeError) as refused:
            async with connected(f"{url}/realtime?model=m"):
                pass

    assert refused.value.status == status
