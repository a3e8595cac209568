"""Names of the tools of permitted MCP servers."""

import pytest

from llm_backend.controllers.mcp.permitted_servers import PermittedServers, function_name


def test_permitted_servers_are_labelled_by_host_and_path():
    servers = PermittedServers(
        ["https://www.towns.example/mcp", "http://towns.example/mcp/", "http://rivers:8090/a/b"],
        timeout_s=1,
    )

    for name in ("towns_example__list", "towns_example_2__list", "rivers_8090_a_b__list"):
        assert servers.has(name)
    for name in ("list", "towns_example", "towns__list", "rivers_8090__list"):
        assert not servers.has(name)


@pytest.mark.parametrize(
    "url", ["https://me:secret@towns.example/mcp", "https://towns.example/mcp?key=secret"]
)
def test_labels_have_no_credentials(url):
    assert list(PermittedServers([url], timeout_s=1).labels) == ["towns_example"]


@pytest.mark.parametrize("length", range(20, 40))
def test_tools_of_servers_with_long_names_are_found(length):
    url = f"http://{'abcdefghi.' * 4}"[:length] + "x"
    servers = PermittedServers([url, url + "/mcp"], timeout_s=1)

    for label in servers.labels:
        assert servers.has(function_name(label, "get_weather"))
