"""The MCP server over an application that breaks an answer off."""

from types import SimpleNamespace
from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.controllers.mcp.permitted_servers import PermittedServers
from llm_backend.controllers.mcp.protocol import run_server

HEADERS = {"accept": "application/json, text/event-stream"}


async def cut_off(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose store fails after the first bytes of a file."""
    await send({"type": "http.response.start", "status": 206, "headers": []})
    await send({"type": "http.response.body", "body": b"The her", "more_body": True})


def with_caller(answer: ASGIApp) -> ASGIApp:
    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        await answer({**scope, "state": {"caller": SimpleNamespace(project=None)}}, receive, send)

    return authenticated


async def test_an_answer_that_broke_off_is_an_error() -> None:
    servers = PermittedServers([], timeout_s=1, list_timeout_s=1)
    called = {"name": "read_file", "arguments": {"file_id": "f"}}
    read = {"uri": "llm-backend://files/f"}

    async def post(client: httpx.AsyncClient, method: str, params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        return (await client.post("/mcp", json=message)).json()

    async with (
        run_server(cut_off, servers, file_limit_bytes=99, body_bytes=9999) as answer,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(with_caller(answer)),
            base_url="http://server",
            headers=HEADERS,
        ) as client,
    ):
        result = (await post(client, "tools/call", called))["result"]
        error = (await post(client, "resources/read", read))["error"]

    assert result["isError"]
    assert "broke off" in result["content"][0]["text"]
    assert "broke off" in error["message"]
