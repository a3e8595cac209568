"""Guards in front of the API."""

import asyncio
import logging

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from llm_backend.controllers.services.error_buffer import RecentErrors
from llm_backend.errors import NotServing
from llm_backend.guards import AbortedStreams, AccessLog, HostGuard
from llm_backend.metrics import Metrics
from llm_backend.settings import load_settings
from tests.gateway import gateway

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def behind(hosts: tuple[str, ...]) -> TestClient:
    return TestClient(HostGuard(PlainTextResponse("in"), hosts, lambda: True))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"]
)
def test_host_guard_accepts_own_names(host):
    assert behind(LOOPBACK).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "::1"]
)
def test_host_guard_refuses_other_names(host):
    response = behind(LOOPBACK).get("/", headers={"host": host})

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "host_not_allowed"


def test_host_guard_protects_only_open_servers_on_loopback():
    assert "localhost" in load_settings().hosts
    assert load_settings({"api_keys": ["sk-x"]}).hosts == ()
    assert load_settings({"host": "0.0.0.0", "allow_open": True}).hosts == ()
    assert load_settings({"allowed_hosts": ["llm.example"]}).hosts == ("llm.example",)


def test_host_guard_accepts_any_name_once_a_key_is_needed():
    is_open = True
    client = TestClient(HostGuard(PlainTextResponse("in"), LOOPBACK, lambda: is_open))
    before = client.get("/", headers={"host": "llm.example.com"})
    is_open = False
    after = client.get("/", headers={"host": "llm.example.com"})

    assert (before.status_code, after.status_code) == (403, 200)


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/healthz", "0.0.0.0", 200),
        ("/readyz", "0.0.0.0", 503),  # without a model
        ("/metrics", "0.0.0.0", 200),
        ("/v1/healthz", "0.0.0.0", 200),
        ("/v1/models", "0.0.0.0", 403),
        ("/healthz", "127.0.0.1", 403),
    ],
)
async def test_host_guard_lets_probes_by_address_reach_a_server_beyond_loopback(
    tmp_path, path, host, status
):
    given = {"host": host, "api_keys": ["sk-x"], "allowed_hosts": ["llm.example"]}
    async with gateway(tmp_path, **given) as served, httpx.AsyncClient() as client:
        address = f"http://127.0.0.1:{served.port}{path}"
        answer = await client.get(address, headers={"host": "10.0.0.7:8000"})

    assert answer.status_code == status


async def broken(scope, receive, send):
    scope["state"] = {"operation_id": "listModels"}
    await PlainTextResponse("no", status_code=503)(scope, receive, send)


def test_access_log_counts_and_logs_without_content(caplog):
    metrics = Metrics()
    with caplog.at_level(logging.INFO, logger="llm_backend.guards"):
        TestClient(AccessLog(broken, metrics, RecentErrors())).get("/?key=secret")

    text = metrics.render().decode()
    assert 'llm_backend_requests_total{operation="listModels",status="503"} 1.0' in text
    assert "llm_backend_requests_in_flight 0.0" in text
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "secret" not in caplog.text


def test_access_log_has_no_error_while_the_server_starts_or_stops(caplog):
    async def not_serving(scope, receive, send):
        scope["state"] = {"operation_id": "getReadiness", "error": NotServing("No model yet.")}
        await PlainTextResponse("no", status_code=503)(scope, receive, send)

    with caplog.at_level(logging.INFO, logger="llm_backend.guards"):
        TestClient(AccessLog(not_serving, Metrics(), RecentErrors())).get("/readyz")

    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize(("status", "levels"), [(200, []), (503, ["ERROR"])])
def test_access_log_is_silent_about_probes_that_succeed(caplog, status, levels):
    async def probed(scope, _receive, send):
        scope.setdefault("state", {})["operation_id"] = "getReadiness"
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with caplog.at_level(logging.INFO, logger="llm_backend.guards"):
        TestClient(AccessLog(probed, Metrics(), RecentErrors())).get("/readyz")

    assert [record.levelname for record in caplog.records] == levels


async def cut_off(*pieces: bytes) -> bytes:
    """Bytes that a client gets of a stream when the server's grace period is over."""
    sent = []

    async def answer(_scope, _receive, send):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        raise asyncio.CancelledError

    async def send(message):
        sent.append(message.get("body", b""))

    await AbortedStreams(answer)({"type": "http", "path": "/x"}, None, send)
    return b"".join(sent)


async def test_aborted_stream_ends_with_an_error_event():
    assert (await cut_off(b"data: 1\n\n")).startswith(b'data: 1\n\ndata: {"error"')
    assert (await cut_off(b"data: {half")).startswith(b'data: {half\n\ndata: {"error"')


def test_host_guard_refuses_web_sockets_of_other_names():
    with (
        pytest.raises(WebSocketDisconnect),
        behind(LOOPBACK).websocket_connect("/", headers={"host": "evil.example"}),
    ):
        pass
