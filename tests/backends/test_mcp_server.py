"""A real MCP server seen through the client: tools, calls, and all the ways in which they fail."""

import asyncio
import time

import pytest

from llm_backend.backends.mcp_server import MESSAGE_BYTES, McpFailed, McpServer, ToolRefused
from tests.mcp_server import TOKEN, mcp_server


@pytest.fixture(scope="module")
def url():
    with mcp_server() as one:
        yield one


def connected(url: str, timeout_s: float = 5, **headers: str) -> McpServer:
    return McpServer(url, headers, timeout_s=timeout_s)


async def test_a_server_tells_its_tools_and_runs_them(url):
    async with connected(url) as server:
        tools = {tool.name: tool for tool in await server.tools()}
        said = await server.call("get_weather", {"city": "Paris"})
        counted = await server.call("count_towns", {})

    assert tools["get_weather"].description == "Tells the weather of a city."
    assert tools["get_weather"].input_schema["required"] == ["city"]
    assert tools["get_weather"].annotations == {"readOnlyHint": True}
    assert tools["count_towns"].annotations is None
    assert (said, counted) == ("It is raining in Paris.", "42")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("get_weather", {"city": "Atlantis"}, "There is no such city"),
        ("get_weather", {"town": "Paris"}, "city"),
        ("no_tool", {}, "no_tool"),
    ],
)
async def test_a_tool_that_fails_says_why(url, name, arguments, words):
    async with connected(url) as server:
        with pytest.raises(ToolRefused, match=words):
            await server.call(name, arguments)


async def test_a_call_that_takes_too_long_is_given_up_and_the_next_one_answered(url):
    async with connected(url, timeout_s=2) as server:
        await server.tools()
        with pytest.raises(McpFailed, match="did not answer within"):
            await server.call("wait", {"seconds": 30})
        said = await server.call("get_weather", {"city": "Rome"})

    assert said == "It is raining in Rome."


async def test_an_answer_that_is_too_long_is_an_error_and_not_held(url):
    async with connected(url) as server:
        with pytest.raises(McpFailed, match=f"more than {MESSAGE_BYTES} bytes"):
            await server.call("recite", {"characters": 3 * MESSAGE_BYTES})
        said = await server.call("get_weather", {"city": "Rome"})

    assert said == "It is raining in Rome."


async def test_a_call_that_nobody_waits_for_any_more_ends(url):
    async with connected(url) as server:
        calling = asyncio.create_task(server.call("wait", {"seconds": 30}))
        await asyncio.sleep(0.2)
        calling.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await calling

    assert time.monotonic() - began < 20


async def test_headers_reach_the_server_and_a_refusal_is_told_by_its_status():
    with mcp_server(wants_token=True) as url:
        async with connected(url, Authorization=f"Bearer {TOKEN}") as server:
            said = await server.call("who_asks", {})
        async with connected(url) as server:
            with pytest.raises(McpFailed) as caught:
                await server.tools()

    assert said == f"Bearer {TOKEN}"
    assert caught.value.status == 401


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/mcp", "http://[bad/mcp"])
async def test_a_server_that_is_not_there_is_an_error(path):
    async with connected(path) as server:
        with pytest.raises(McpFailed):
            await server.tools()
        with pytest.raises(McpFailed):
            await server.call("get_weather", {"city": "Paris"})


async def test_a_connection_may_be_left_in_another_task_than_it_was_made_in(url):
    server = connected(url)
    await server.__aenter__()
    await asyncio.create_task(server.tools())
    await asyncio.create_task(server.__aexit__(None, None, None))
