"""MCP client with a real server: tools, calls and failures."""

import asyncio
import ssl
import time
from typing import Any

import pytest

from llm_backend.backends.mcp_server import MESSAGE_BYTES, McpFailed, McpServer, ToolRefused
from tests.mcp_server import TOKEN, mcp_server
from tests.patience import settle


@pytest.fixture(scope="module")
def url():
    with mcp_server() as one:
        yield one


def connected(url: str, timeout_s: float = 5, **headers: str) -> McpServer:
    return McpServer(url, headers, timeout_s=timeout_s)


async def test_tools_are_listed_and_called(url):
    async with connected(url) as server:
        tools = {tool.name: tool for tool in await server.tools()}
        said = await server.call("get_weather", {"city": "Paris"})
        counted = await server.call("count_towns", {})

    assert tools["get_weather"].description == "Tells the weather of a city."
    assert tools["get_weather"].input_schema["required"] == ["city"]
    assert tools["get_weather"].annotations == {"readOnlyHint": True}
    assert tools["count_towns"].annotations is None
    assert (said, counted) == ("It is raining in Paris.", "42")


async def test_connections_read_no_certificates(url, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("a connection reads certificates")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", fail)
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", fail)
    async with connected(url) as server:
        assert await server.tools()


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("get_weather", {"city": "Atlantis"}, "There is no such city"),
        ("get_weather", {"town": "Paris"}, "city"),
        ("no_tool", {}, "no_tool"),
    ],
)
async def test_failed_tool_raises_its_message(url, name, arguments, words):
    async with connected(url) as server:
        with pytest.raises(ToolRefused, match=words):
            await server.call(name, arguments)


async def test_call_has_a_timeout_and_the_next_call_works(url):
    async with connected(url, timeout_s=5) as server:
        await server.tools()
        with pytest.raises(McpFailed, match="did not answer within"):
            await server.call("wait", {"seconds": 30})
        said = await server.call("get_weather", {"city": "Rome"})

    assert said == "It is raining in Rome."


async def test_too_long_answer_is_an_error(url):
    async with connected(url) as server:
        with pytest.raises(McpFailed, match=f"more than {MESSAGE_BYTES} bytes"):
            await server.call("recite", {"characters": 3 * MESSAGE_BYTES})
        said = await server.call("get_weather", {"city": "Rome"})

    assert said == "It is raining in Rome."


async def test_cancelled_call_ends(url):
    async with connected(url) as server:
        calling = asyncio.create_task(server.call("wait", {"seconds": 30}))
        await settle(0.2)
        calling.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await calling

    assert time.monotonic() - began < 20


async def test_headers_are_sent_and_a_refusal_has_its_status():
    with mcp_server(wants_token=True) as url:
        async with connected(url, Authorization=f"Bearer {TOKEN}") as server:
            said = await server.call("who_asks", {})
        async with connected(url) as server:
            with pytest.raises(McpFailed) as caught:
                await server.tools()

    assert said == f"Bearer {TOKEN}"
    assert caught.value.status == 401


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/mcp", "http://[bad/mcp"])
async def test_unreachable_server_is_an_error(path):
    async with connected(path) as server:
        with pytest.raises(McpFailed):
            await server.tools()
        with pytest.raises(McpFailed):
            await server.call("get_weather", {"city": "Paris"})


async def test_unexpected_error_of_the_library_is_raised_at_once(url, caplog):
    no_text: Any = 1
    async with connected(url, timeout_s=60, number=no_text) as server, asyncio.timeout(30):
        with pytest.raises(McpFailed, match="Header value must be str or bytes"):
            await server.tools()

    assert [one.msg for one in caplog.records] == ["mcp_client_failed"]


async def test_connection_may_be_closed_in_another_task(url):
    server = connected(url)
    await server.__aenter__()
    await asyncio.create_task(server.tools())
    await asyncio.create_task(server.__aexit__(None, None, None))
