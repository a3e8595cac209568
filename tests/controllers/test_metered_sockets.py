"""WebSockets to an upstream are held to limits and permissions, counted, and ended with their key.

The upstream says what it is told, so that a client can have it tell what it took.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from tests.controllers.test_sockets import FarSocket, connected, relayed_sockets
from tests.strict_sdk import StrictAsyncOpenAI

USAGE = {
    "total_tokens": 12,
    "input_tokens": 10,
    "output_tokens": 2,
    "input_token_details": {"cached_tokens": 4},
}


def done(**usage: Any) -> str:
    return json.dumps({"type": "response.done", "response": {"usage": {**USAGE, **usage}}})


def session(kind: str, **more: Any) -> str:
    return json.dumps({"type": kind, "session": {"type": "realtime", **more}})


@asynccontextmanager
async def served(tmp_path, **more: Any) -> AsyncIterator[tuple[FarSocket, str, Any]]:
    """A far socket, the address of its server, and the administration of that."""
    settings = {"api_keys": ("mine",), "keys_refresh_s": 0.05, **more}
    async with (
        relayed_sockets(tmp_path, **settings) as (far, url),
        StrictAsyncOpenAI(
            base_url=url, api_key="mine", admin_api_key="mine", max_retries=0
        ) as client,
    ):
        yield far, url, client.admin.organization


def opening(url: str, query: str = "?model=gpt-realtime", key: str = "mine") -> Any:
    return connected(f"{url}/realtime{query}", headers={"authorization": f"Bearer {key}"})


async def said(socket: ClientWebSocketResponse, *messages: str) -> None:
    for message in messages:
        await socket.send_str(message)
        assert (await socket.receive()).data == message


async def used(organization: Any) -> dict[str, tuple[int, int, int, int]]:
    told = await organization.usage.completions(
        start_time=int(time.time()) - 120, group_by=["model"]
    )
    return {
        one.model: (one.input_tokens, one.input_cached_tokens, one.output_tokens,
                    one.num_model_requests)
        for bucket in told.data for one in bucket.results
    }  # fmt: skip


async def test_usage_of_each_realtime_answer_is_counted(tmp_path):
    heard = {"type": "conversation.item.input_audio_transcription.completed", "usage": USAGE}
    hearing = {"audio": {"input": {"transcription": {"model": "ears"}}}}
    async with served(tmp_path) as (_, url, organization):
        async with opening(url) as socket:
            await said(socket, session("session.created", model="gpt-realtime", **hearing))
            await said(socket, done(), done(), json.dumps(heard), '{"usage":', '{"type":"x"}')
        counted = await used(organization)

    assert counted == {"gpt-realtime": (20, 8, 4, 2), "ears": (10, 4, 2, 1)}


async def test_a_model_that_only_the_upstream_names_is_counted(tmp_path):
    async with served(tmp_path) as (_, url, organization):
        async with opening(url, "?call_id=c") as socket:
            await said(socket, session("session.created", model="gpt-realtime"), done())
        counted = await used(organization)

    assert counted == {"gpt-realtime": (10, 4, 2, 1)}


async def test_a_routes_socket_is_counted_as_the_model_that_opened_it(tmp_path):
    async with served(tmp_path, routes={"voice": "busy, free"}) as (far, url, organization):
        far.refused_models = {"busy": 429}
        async with opening(url, "?model=voice") as socket:
            await said(socket, done())
        counted = await used(organization)

    assert counted == {"free": (10, 4, 2, 1)}


@pytest.mark.parametrize(
    "limit", [{"key_concurrent_requests": 1}, {"requests_per_minute": 1}, {"tokens_per_minute": 9}]
)
async def test_limits_hold_for_sockets(tmp_path, limit):
    async with served(tmp_path, **limit) as (_, url, _), opening(url) as socket:
        await said(socket, done())
        with pytest.raises(WSServerHandshakeError) as refused:
            async with opening(url):
                pass

    assert refused.value.status == 429


async def test_an_ended_socket_releases_its_concurrency_slot(tmp_path):
    async with served(tmp_path, key_concurrent_requests=1) as (far, url, _):
        for _ in "12":
            async with opening(url) as socket:
                await said(socket, "x")

    assert len(far.opened) == 2


async def ending(socket: ClientWebSocketResponse) -> Any:
    """The error that a socket ends with."""
    async with asyncio.timeout(20):
        event = json.loads((await socket.receive()).data)
        assert (await socket.receive()).type is WSMsgType.CLOSE
    return event["error"]


@pytest.mark.parametrize("path", ["/realtime?model=gpt-realtime", "/responses"])
async def test_a_revoked_key_ends_its_socket(tmp_path, path):
    async with served(tmp_path) as (_, url, organization):
        accounts = organization.projects.service_accounts
        account = await accounts.create("proj_default", name="app")
        headers = {"authorization": f"Bearer {account.api_key.value}"}
        async with connected(url + path, headers=headers) as socket:
            await accounts.delete(account.id, project_id="proj_default")
            error = await ending(socket)

    assert error["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "message",
    [
        session("session.update", audio={"input": {"transcription": {"model": "bad"}}}),
        session("session.update", tools=[{"type": "mcp", "server_label": "s"}]),
        json.dumps({"type": "response.create", "response": {"tools": [{"type": "mcp"}]}}),
        '{"type": "session.update", "x": NaN, "session": {"model": "bad"}}',
        '{"type": "session.update", "session": {"model": "bad", "model": "good"}}',
        '{"type": "x", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
async def test_a_model_that_is_not_permitted_ends_the_socket(tmp_path, message):
    async with served(tmp_path) as (far, url, organization):
        projects = organization.projects
        await projects.model_permissions.update("proj_default", mode="deny_list", model_ids=["bad"])
        await projects.hosted_tool_permissions.update("proj_default", mcp={"enabled": False})
        async with opening(url) as socket:
            await socket.send_str(message)
            error = await ending(socket)
        with pytest.raises(WSServerHandshakeError):
            async with opening(url, "?model=bad"):
                pass

    assert error["type"] == "invalid_request_error"
    assert far.got == []


async def test_a_model_that_only_the_upstream_names_is_checked(tmp_path):
    async with served(tmp_path) as (far, url, organization):
        far.greeting = session("session.created", model="gpt-realtime-2025-08-28")
        await organization.projects.model_permissions.update(
            "proj_default", mode="allow_list", model_ids=["gpt-realtime"]
        )
        async with opening(url) as socket:
            await socket.receive()
            await said(socket, done())
        async with opening(url, "?call_id=c") as socket:
            error = await ending(socket)
        counted = await used(organization)

    assert error["code"] == "model_not_found"
    assert counted == {"gpt-realtime": (10, 4, 2, 1)}
