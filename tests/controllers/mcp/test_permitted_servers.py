"""Names of the tools of permitted MCP servers."""

import asyncio
import socket

import pytest

from llm_backend.backends import mcp_server as mcp_server_module
from llm_backend.backends.mcp_server import McpFailed
from llm_backend.controllers.mcp.permitted_servers import PermittedServers, function_name
from tests.mcp_server import mcp_server


def test_permitted_servers_are_labelled_by_host_and_path():
    servers = PermittedServers(
        ["https://www.towns.example/mcp", "http://towns.example/mcp/", "http://rivers:8090/a/b"],
        timeout_s=1,
        list_timeout_s=1,
    )

    for name in ("towns_example__list", "towns_example_2__list", "rivers_8090_a_b__list"):
        assert servers.has(name)
    for name in ("list", "towns_example", "towns__list", "rivers_8090__list"):
        assert not servers.has(name)


@pytest.mark.parametrize(
    "url", ["https://me:secret@towns.example/mcp", "https://towns.example/mcp?key=secret"]
)
def test_labels_have_no_credentials(url):
    assert list(PermittedServers([url], timeout_s=1, list_timeout_s=1).labels) == ["towns_example"]


async def test_failures_have_no_credentials():
    with socket.socket() as closed:  # it does not listen: connections are refused
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        servers = PermittedServers(
            [f"http://me:secret@{address}/mcp?key=secret"], timeout_s=60, list_timeout_s=60
        )
        (label,) = servers.labels
        listed = await servers.list_tools(limit=10)
        with pytest.raises(McpFailed) as failed:
            await servers.call(f"{label}__x", {})

    assert list(listed.failures) == [label]
    assert "secret" not in f"{listed.failures} {failed.value}"


@pytest.mark.parametrize("length", range(20, 40))
def test_tools_of_servers_with_long_names_are_found(length):
    url = f"http://{'abcdefghi.' * 4}"[:length] + "x"
    servers = PermittedServers([url, url + "/mcp"], timeout_s=1, list_timeout_s=1)

    for label in servers.labels:
        assert servers.has(function_name(label, "get_weather"))


async def test_a_server_that_hangs_delays_the_list_for_a_bounded_time_only():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never accepts
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        servers = PermittedServers([url], timeout_s=3600, list_timeout_s=0.1)
        (label,) = servers.labels
        listed = await servers.list_tools(limit=10)

    assert listed.failures == {label: "It did not list its tools within 0.1 seconds."}


async def test_a_server_that_hangs_at_its_end_too_delays_the_list_no_longer(monkeypatch):
    monkeypatch.setattr(mcp_server_module, "CLOSE_S", 3600)
    with mcp_server(hangs=True) as url:
        servers = PermittedServers([url], timeout_s=3600, list_timeout_s=0.5)
        (label,) = servers.labels
        async with asyncio.timeout(60):
            listed = await servers.list_tools(limit=10)

    assert listed.failures == {label: "It did not list its tools within 0.5 seconds."}


async def test_servers_with_more_tools_than_a_chat_may_have_are_named():
    with mcp_server() as one, mcp_server() as other:
        servers = PermittedServers([one, other], timeout_s=60, list_timeout_s=60)
        first, second = servers.labels
        listed = await servers.list_tools(limit=7)

    assert {name.partition("__")[0] for name in listed.tools} == {first}
    assert listed.failures[second].startswith("It has 5 tools, and 2 more can be offered")
