"""A real MCP server, made with the library's own server side, for the tests of its client."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

TOKEN = "secret-token"
READ_ONLY = ToolAnnotations(read_only_hint=True)


def _server() -> MCPServer:
    server = MCPServer("towns", log_level="CRITICAL")

    @server.tool(annotations=READ_ONLY)
    def get_weather(city: str) -> str:
        """Tells the weather of a city."""
        if city == "Atlantis":
            raise ToolError("There is no such city.")
        return f"It is raining in {city}."

    @server.tool()
    def count_towns() -> int:
        """Counts the towns."""
        return 42

    @server.tool()
    async def wait(seconds: float) -> str:
        """Takes its time."""
        await asyncio.sleep(seconds)
        return "done"

    @server.tool()
    def recite(characters: int) -> str:
        """Says a lot."""
        return "x" * characters

    @server.tool()
    def who_asks(context: Context) -> str:
        """Tells a header of the request."""
        return str((context.headers or {}).get("authorization"))

    return server


@contextlib.contextmanager
def mcp_server(*, wants_token: bool = False, hangs: bool = False) -> Iterator[str]:
    """Its URL while it runs, in a thread of this process. With `wants_token` it answers 401 to who
    does not send `TOKEN`. With `hangs` it opens sessions, but neither lists tools nor ends them."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    app = _server().streamable_http_app()

    async def guarded(scope, receive, send):
        headers = dict(scope.get("headers") or ())
        if scope["type"] == "http" and headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    async def hanging(scope, receive, send):
        if scope["type"] != "http" or scope["method"] == "GET":
            await app(scope, receive, send)
            return
        message = await receive()
        if b"server/discover" in message["body"]:  # as servers that have sessions answer
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["method"] == "DELETE" or b"tools/list" in message["body"]:
            while message["type"] != "http.disconnect":
                message = await receive()
            return
        received = [message]

        async def receive_again():
            return received.pop() if received else await receive()

        await app(scope, receive_again, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        served = guarded if wants_token else hanging if hangs else app
        config = uvicorn.Config(served, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the MCP server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            server.should_exit = True
            thread.join(10)
