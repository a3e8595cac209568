"""Names of the tools of permitted MCP servers."""

from llm_backend.controllers.mcp.permitted_servers import PermittedServers


def test_permitted_servers_are_labelled_by_host_and_path():
    servers = PermittedServers(
        ["https://www.towns.example/mcp", "http://towns.example/mcp/", "http://rivers:8090/a/b"],
        timeout_s=1,
    )

    for name in ("towns_example__list", "towns_example_2__list", "rivers_8090_a_b__list"):
        assert servers.has(name)
    for name in ("list", "towns_example", "towns__list", "rivers_8090__list"):
        assert not servers.has(name)
