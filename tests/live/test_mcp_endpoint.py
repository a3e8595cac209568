"""The server as an MCP server, driven by the library's own client."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextResourceContents

from tests.mcp_server import mcp_server
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

KEY = "sk-client"
LETTER = "The heron stands in the river, ä"


@pytest.fixture(scope="module")
def served(minilm_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {
        "LLM_BACKEND_API_KEYS": KEY, "LLM_BACKEND_MCP_API": "true",
        "LLM_BACKEND_MCP_FILE_LIMIT_BYTES": "1024", "LLM_BACKEND_MCP_NODES_LIMIT": "1000",
    }  # fmt: skip
    flags = ("--model", "builtin", "--model", str(minilm_file))
    with serve(tmp_path_factory.mktemp("mcp"), *flags, environment=environment) as one:
        yield one


@pytest.fixture(scope="module")
def library(served: Served) -> dict[str, str]:
    """Ids of two files, and of a vector store with the first."""
    with StrictOpenAI(base_url=served.base_url, api_key=KEY) as client:
        letter = client.files.create(file=("letter.txt", LETTER.encode()), purpose="user_data")
        long = client.files.create(file=("long.txt", b"x" * 1500), purpose="user_data")
        store = client.vector_stores.create(name="birds")
        added = client.vector_stores.files.create_and_poll(
            letter.id, vector_store_id=store.id, poll_interval_ms=20
        )
        assert added.status == "completed"
    return {"letter": letter.id, "long": long.id, "store": store.id}


@asynccontextmanager
async def connected(served: Served, key: str = KEY, **more: str) -> AsyncIterator[mcp.Client]:
    headers = {"authorization": f"Bearer {key}", **more}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        mcp.Client(streamable_http_client(f"{served.address}/mcp", http_client=http)) as client,
    ):
        yield client


async def text_of(client: mcp.Client, name: str, *, fails: bool = False, **given: Any) -> str:
    result = await client.call_tool(name, given)
    assert result.is_error is fails, result
    (block,) = result.content
    assert block.type == "text"
    return block.text


async def test_tools_reach_vector_stores_files_and_models(
    served: Served, library: dict[str, str]
) -> None:
    async with connected(served) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        stores = json.loads(await text_of(client, "list_vector_stores"))
        found = json.loads(
            await text_of(
                client, "search_vector_store",
                vector_store_id=library["store"], query="Which bird?",
            )
        )  # fmt: skip
        first = json.loads(await text_of(client, "list_files", limit=1))
        rest = json.loads(await text_of(client, "list_files", after=first["last_id"]))
        letter = await text_of(client, "read_file", file_id=library["letter"])
        piece = await text_of(client, "read_file", file_id=library["letter"], offset=4, length=5)
        models = json.loads(await text_of(client, "list_models"))
        said = await text_of(client, "chat", model="builtin", message="Hello, who are you?")

    assert set(tools) == {
        "list_vector_stores", "search_vector_store", "list_files", "read_file", "list_models",
        "chat",
    }  # fmt: skip
    assert tools["chat"].annotations is not None
    assert tools["chat"].annotations.read_only_hint is False
    assert [(one["id"], one["name"]) for one in stores["data"]] == [(library["store"], "birds")]
    assert found["data"][0]["filename"] == "letter.txt"
    assert "heron" in found["data"][0]["content"][0]["text"]
    assert {one["id"] for one in (*first["data"], *rest["data"])} == {
        library["letter"], library["long"],
    }  # fmt: skip
    assert (letter, piece) == (LETTER, "heron")
    assert {one["id"] for one in models["data"]} >= {"builtin"}
    assert "built-in model" in said


async def test_pieces_after_the_end_of_a_file_are_empty(
    served: Served, library: dict[str, str]
) -> None:
    size = len(LETTER.encode())
    async with connected(served) as client:
        pieces = [
            await text_of(client, "read_file", file_id=library["letter"], offset=offset)
            for offset in (size, size + 1)
        ]

    assert pieces == ["", ""]


async def test_files_are_resources(served: Served, library: dict[str, str]) -> None:
    async with connected(served) as client:
        listed = {one.name: one for one in (await client.list_resources()).resources}
        (contents,) = (await client.read_resource(listed["letter.txt"].uri)).contents
        with pytest.raises(mcp.MCPError, match="more than 1024 bytes"):
            await client.read_resource(listed["long.txt"].uri)
        with pytest.raises(mcp.MCPError, match="no resource"):
            await client.read_resource("file:///etc/passwd")

    assert listed["long.txt"].size == 1500
    assert isinstance(contents, TextResourceContents)
    assert contents.text == LETTER


async def test_wrong_calls_are_results_with_the_error(
    served: Served, library: dict[str, str]
) -> None:
    async with connected(served) as client:
        missing = await text_of(client, "read_file", fails=True, file_id="../models")
        wrong = await text_of(client, "read_file", fails=True, file_id=7)
        unknown = await text_of(client, "chat", fails=True, model="nothing", message="Hi")
        with pytest.raises(mcp.MCPError, match="no tool `fly`"):
            await client.call_tool("fly", {})

    assert "models" in missing
    assert "7 is not of type" in wrong
    assert "does not exist" in unknown


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, str]]:
    """A server that permits a server of towns and one that is away; the port of the first."""
    with mcp_server() as towns:
        environment = {
            "LLM_BACKEND_API_KEYS": KEY, "LLM_BACKEND_MCP_API": "true",
            "LLM_BACKEND_MODELS": "none",
            "LLM_BACKEND_MCP_SERVERS": f"{towns},http://127.0.0.1:9/mcp",
        }  # fmt: skip
        with serve(tmp_path_factory.mktemp("forwarding"), environment=environment) as one:
            yield one, towns.split(":")[2].removesuffix("/mcp")


async def test_tools_of_permitted_servers_are_offered_and_called(
    forwarding: tuple[Served, str],
) -> None:
    served, port = forwarding
    town = f"127_0_0_1_{port}__"
    async with connected(served) as client:
        listed = await client.list_tools()
        weather = await text_of(client, f"{town}get_weather", city="Paris")
        failed = await text_of(client, f"{town}get_weather", fails=True, city="Atlantis")
        unknown = await text_of(client, f"{town}fly", fails=True)
        away = await text_of(client, "127_0_0_1_9__fly", fails=True)

    names = [tool.name for tool in listed.tools]
    assert {f"{town}get_weather", f"{town}count_towns", "list_models"} <= set(names)
    assert (weather, unknown) == ("It is raining in Paris.", f"The server has no tool `{town}fly`.")
    assert "no such city" in failed
    (missing,) = (listed.meta or {})["llm-backend/unavailable"]
    assert missing == "127_0_0_1_9"
    assert "connect" in away.lower()


async def test_a_server_that_permits_itself_lists_its_own_tools_to_itself(
    forwarding: tuple[Served, str],
) -> None:
    served, port = forwarding
    async with connected(served, **{"x-llm-backend-mcp": "1"}) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        with pytest.raises(mcp.MCPError, match="There is no tool"):
            await client.call_tool(f"127_0_0_1_{port}__count_towns", {})

    assert "list_models" in names
    assert not any("__" in name for name in names)


async def test_a_project_without_mcp_gets_the_own_tools_alone(
    forwarding: tuple[Served, str],
) -> None:
    served, port = forwarding
    with StrictOpenAI(base_url=served.base_url, api_key=KEY, admin_api_key=KEY) as client:
        projects = client.admin.organization.projects
        project = projects.create(name="careful")
        key = projects.service_accounts.create(project.id, name="app").api_key.value
        projects.hosted_tool_permissions.update(project.id, mcp={"enabled": False})
    async with connected(served, key) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        with pytest.raises(mcp.MCPError, match="There is no tool"):
            await client.call_tool(f"127_0_0_1_{port}__get_weather", {"city": "Paris"})

    assert not any("__" in name for name in names)


async def test_keys_projects_and_limits_hold(served: Served, library: dict[str, str]) -> None:
    with StrictOpenAI(base_url=served.base_url, api_key=KEY, admin_api_key=KEY) as client:
        project = client.admin.organization.projects.create(name="other")
        accounts = client.admin.organization.projects.service_accounts
        key = accounts.create(project.id, name="app").api_key.value
        client.admin.organization.projects.model_permissions.update(
            project.id, mode="deny_list", model_ids=["builtin"]
        )
    async with connected(served, key) as other:
        stores = json.loads(await text_of(other, "list_vector_stores"))
        refused = await text_of(other, "read_file", fails=True, file_id=library["letter"])
        forbidden = await text_of(other, "chat", fails=True, model="builtin", message="Hi")
    assert stores["data"] == []
    assert library["letter"] in refused
    assert "does not have access" in forbidden


async def test_rate_limit_of_the_project_holds(served: Served) -> None:
    with StrictOpenAI(base_url=served.base_url, api_key=KEY, admin_api_key=KEY) as client:
        projects = client.admin.organization.projects
        project = projects.create(name="limited").id
        key = projects.service_accounts.create(project, name="app").api_key.value
        projects.rate_limits.update_rate_limit(
            "rl-builtin", project_id=project, max_requests_per_1_minute=1
        )
    async with connected(served, key) as limited:
        said = await text_of(limited, "chat", model="builtin", message="Hello, who are you?")
        refused = await text_of(limited, "chat", fails=True, model="builtin", message="Hello?")

    assert "built-in model" in said
    assert "on requests (RPM): Limit 1" in refused


def test_endpoint_needs_a_key_and_is_off_unless_set(served: Served, server: Served) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    unknown = httpx.post(
        f"{served.address}/mcp", json=message, headers={"authorization": "Bearer sk-no"}
    )
    answer = httpx.post(f"{server.address}/mcp", json=message)

    assert unknown.status_code == 401
    assert answer.status_code == 501
    assert "mcp_api" in answer.json()["error"]["message"]


def test_message_of_too_many_values_is_refused_by_the_setting(served: Served) -> None:
    headers = {
        "authorization": f"Bearer {KEY}",
        "accept": "application/json, text/event-stream",
    }
    statuses = []
    for values in (500, 1000):
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": [1] * values}}
        answer = httpx.post(f"{served.address}/mcp", json=message, headers=headers)
        statuses.append(answer.status_code)

    assert statuses[0] != 413
    assert statuses[1] == 413
    assert "at most 1000 JSON values and names (`mcp_nodes_limit`)" in answer.text


@pytest.mark.parametrize("fields", [{}, {"method": 1, "id": 1}])
def test_long_body_that_is_no_message_is_refused_without_its_values(
    served: Served, fields: dict[str, object]
) -> None:
    headers = {
        "authorization": f"Bearer {KEY}",
        "accept": "application/json, text/event-stream",
    }
    body = {"jsonrpc": "2.0", "vendor": "a" * 100_000, **fields}

    answer = httpx.post(f"{served.address}/mcp", json=body, headers=headers)

    assert answer.status_code == 400
    assert "JSON-RPC" in answer.json()["error"]["message"]
