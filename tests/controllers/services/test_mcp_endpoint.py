"""The MCP server is started by the first message, and again if that start failed."""

from typing import Any

import pytest
from starlette.types import Message

from llm_backend.controllers.mcp import protocol
from llm_backend.controllers.services.mcp_endpoint import McpEndpoint

SCOPE = {
    "type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "root_path": "",
    "headers": [(b"content-type", b"application/json"), (b"accept", b"application/json")],
}  # fmt: skip
PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


async def test_a_failed_start_is_tried_again_by_the_next_message(monkeypatch: Any) -> None:
    endpoint = McpEndpoint(
        urls=(), timeout_s=5, list_timeout_s=5, file_limit_bytes=100, body_bytes=1000
    )

    def fail(*_: object, **__: object) -> None:
        raise OSError("Too many open files")

    async def app(*_: object) -> None:
        """Gets no request: a ping calls no tool."""

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": PING, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    async with endpoint.serve(app):
        with monkeypatch.context() as patched:
            patched.setattr(protocol, "run_server", fail)
            with pytest.raises(OSError, match="Too many open files"):
                await endpoint.answer(SCOPE, receive, send)
        await endpoint.answer(SCOPE, receive, send)

    assert sent[0]["status"] == 200
