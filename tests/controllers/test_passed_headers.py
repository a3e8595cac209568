"""Only listed headers pass a relay, in both directions, and no redirect does."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSServerHandshakeError

from llm_backend.app import App
from llm_backend.app.upstreams import upstream_configs
from llm_backend.backends.upstream.passed_headers import without_credentials
from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from llm_backend.settings import SettingsError, load_settings
from tests.controllers.test_sockets import connected, relayed_sockets
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, Message, post, serving, upstream_of

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
ANSWER = b'{"choices":[]}'
VALIDATORS = Validators(load_document())

CREDENTIALS = {
    "authorization": "Bearer client-secret",
    "x-api-key": "client-secret",
    "api-key": "client-secret",
    "x-goog-api-key": "client-secret",
    "anthropic-api-key": "client-secret",
    "cookie": "session=client-secret",
    "proxy-authorization": "Basic client-secret",
    "x-amz-security-token": "client-secret",
}
OF_THE_BROWSER = {
    "origin": "http://relay",
    "referer": "http://relay/page",
    "sec-fetch-site": "same-origin",
    "x-forwarded-for": "10.1.2.3",
    "forwarded": "for=10.1.2.3",
    "x-real-ip": "10.1.2.3",
    "openai-organization": "org-of-the-client",
    "openai-project": "proj-of-the-client",
    "x-anything": "1",
}
FOR_UPSTREAMS = {
    "accept": "application/json",
    "user-agent": "OpenAI/Python 3.54.0",
    "idempotency-key": "once",
    "openai-beta": "assistants=v2",
    "openai-safety-identifier": "someone",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "x-client-request-id": "mine",
}


@contextlib.asynccontextmanager
async def served_with_sockets(tmp_path: Path, entry: dict[str, Any]) -> AsyncIterator[str]:
    app = App(load_settings({"models": (), "data_dir": tmp_path, "backends": [entry]}))
    async with app.open(), serving(app, ws="auto") as port:
        yield f"http://127.0.0.1:{port}/v1"


def lines(headers: dict[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())


def answering(headers: dict[str, str], status: str = "200 OK", body: bytes = ANSWER) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n".encode()
    return head + lines(headers) + b"\r\n" + body


def named(message: Message) -> set[str]:
    return {name.decode().lower() for name, _ in message.headers}


async def test_upstreams_get_what_they_need_and_no_credentials_of_clients(tmp_path):
    sent = CREDENTIALS | OF_THE_BROWSER | FOR_UPSTREAMS
    async with (
        FakeUpstream(answer=answering({})) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        await served.ask(post(CHAT, more=lines(sent)))

    (got,) = fake.requests
    assert named(got) == {"host", "authorization", "content-type", "content-length", *FOR_UPSTREAMS}
    assert got.values(b"authorization") == [b"Bearer k"]
    assert all(b"client-secret" not in value for _, value in got.headers)


async def test_pass_headers_never_includes_credentials(tmp_path):
    answer = answering({"x-routed-to": "gpu-7", "x-other": "1", "set-cookie": "a=1"})
    sent = CREDENTIALS | {"x-session-id": "s1", "x-other": "1"}
    passes = ["X-Session-*", "x-routed-to", "*key*", "*cookie*", "auth*"]
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, "a", pass_headers=passes)]) as served,
    ):
        got = await served.ask(post(CHAT, more=lines(sent)))

    assert fake.requests[0].values(b"x-session-id") == [b"s1"]
    assert named(fake.requests[0]) & {"x-other", *CREDENTIALS} == {"authorization"}
    assert got.values(b"x-routed-to") == [b"gpu-7"]
    assert not named(got) & {"x-other", "set-cookie"}


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "host", "set-cookie", "sec-x"])
def test_a_header_that_never_passes_cannot_be_named(name: str):
    entry = {"name": "a", "base_url": "http://a/v1", "pass_headers": [name]}

    with pytest.raises(SettingsError, match=f"{name.lower()}.*never"):
        upstream_configs(load_settings({"backends": [entry]}))


async def test_clients_get_what_concerns_their_answer_and_nothing_of_the_upstreams_site(tmp_path):
    passed = {
        "content-type": "application/json",
        "openai-processing-ms": "12",
        "openai-version": "2020-10-01",
        "x-ratelimit-remaining-requests": "9",
        "retry-after-ms": "5",
        "x-should-retry": "false",
        "x-accel-buffering": "no",
    }
    dropped = {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "x",
        "server": "cloudflare",
        "strict-transport-security": "max-age=1",
        "set-cookie": "a=1",
        "location": "https://elsewhere.example/",
        "alt-svc": 'h3=":443"',
        "via": "1.1 x",
        "cf-ray": "1",
        "openai-organization": "org-of-the-operator",
        "openai-project": "proj-of-the-operator",
        "x-accel-redirect": "/internal/secret",
        "x-llm-backend-unknown-fields": "none",
        "x-anything": "1",
    }
    ids = b"x-request-id: req_theirs\r\n"
    answer = answering(passed | dropped).replace(b"\r\n\r\n", b"\r\n" + ids + b"\r\n", 1)
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    ours = {"x-request-id", "date", "content-length", "openai-processing-ms", "openai-version"}
    assert named(got) - (ours - passed.keys()) == {*passed, "x-upstream-request-id"}
    assert got.values(b"x-upstream-request-id") == [b"req_theirs"]
    (request_id,) = got.values(b"x-request-id")
    assert request_id not in (b"", b"req_theirs")


@pytest.mark.parametrize(
    ("location", "passes"),
    [
        ("/v1/realtime/calls/rtc_1", True),
        ("https://elsewhere.example/v1/realtime/calls/rtc_1", False),
        ("//elsewhere.example/rtc_1", False),
        ("/\\elsewhere.example/rtc_1", False),
    ],
)
async def test_the_location_of_a_new_object_passes_as_a_path_only(
    tmp_path, location: str, passes: bool
):
    answer = answering({"location": location, "content-type": "application/sdp"}, "201 Created")
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        offer = post(b"v=0", path="/v1/realtime/calls").replace(b"/json", b"/sdp")
        got = await served.ask(offer)

    assert got.status == 201
    assert got.values(b"location") == ([location.encode()] if passes else [])


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_a_documented_error_and_is_not_followed(tmp_path, capsys, status: int):
    async with FakeUpstream() as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.port}/v1/chat/completions?token=hidden"
        answer = answering({"location": target}, f"{status} Elsewhere", b"")
        async with (
            FakeUpstream(answer=answer) as fake,
            gateway(tmp_path, backends=[backend(fake, "the-hidden-one")]) as served,
        ):
            got = await served.ask(post(CHAT))

    check = VALIDATORS.response("createChatCompletion", 502, "application/json")
    error = json.loads(got.body)["error"]
    assert check is not None
    assert check.is_valid(json.loads(got.body))
    assert (got.status, error["code"]) == (502, "upstream_failed")
    assert f"redirect (status {status})" in error["message"]
    assert "127.0.0.1" not in error["message"]
    assert got.values(b"location") == []
    assert elsewhere.requests == []
    log = capsys.readouterr().err
    assert "the-hidden-one" in log
    assert f"http://127.0.0.1:{elsewhere.port}/v1/chat/completions" in log
    assert "hidden" not in log.replace("the-hidden-one", "")


async def test_another_backend_answers_where_one_redirects(tmp_path):
    moved = answering({"location": "/login"}, "302 Found", b"")
    async with (
        FakeUpstream(answer=moved) as first,
        FakeUpstream(answer=answering({})) as second,
        gateway(tmp_path, backends=[backend(first, "a", "m"), backend(second, "b", "m")]) as served,
    ):
        answers = [await served.ask(post(CHAT)) for _ in range(2)]

    assert [got.body for got in answers] == [ANSWER, ANSWER]
    assert first.requests


QUERIES = {
    "api_key=client-secret": "",
    "limit=2&api_key=client-secret&order=desc": "limit=2&order=desc",
    "KEY=client-secret&limit=2": "limit=2",
    "%61pi%5Fkey=client-secret&a=%20b": "a=%20b",
    "a=1;access_token=client-secret&b": "b",
    "x-goog-api-key=client-secret": "",
    "metadata%5Bkey%5D=a&keys=1&&": "metadata%5Bkey%5D=a&keys=1&&",
}


@pytest.mark.parametrize(("query", "passed"), QUERIES.items())
def test_query_passes_without_keys(query: str, passed: str):
    assert without_credentials(query) == passed


def test_no_parameter_of_the_document_is_taken_for_a_key():
    document = load_document()
    names = [
        parameter["name"]
        for id in document.operations
        for parameter in document.operation(id).get("parameters", ())
        if parameter.get("in") == "query"
    ]

    assert len(names) > 100
    assert [name for name in names if without_credentials(f"{name}=1") == ""] == []


async def test_upstream_gets_no_key_of_a_query(tmp_path):
    target = b"/v1/evals?api_key=client-secret&limit=1"
    request = b"GET " + target + b" HTTP/1.1\r\nhost: relay\r\n\r\n"
    async with (
        FakeUpstream(answer=answering({})) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        assert (await served.ask(request)).status == 200
    async with (
        relayed_sockets(tmp_path / "sockets") as (far, url),
        connected(f"{url}/realtime?token=client-secret&model=m"),
    ):
        pass

    assert fake.requests[0].first_line.split()[1].endswith(b"/evals?limit=1")
    assert far.opened[0].scope["query_string"] == b"model=m"


async def test_a_websocket_gets_the_same_headers_and_public_protocols_only(
    tmp_path,
):
    protocols = [
        "realtime",
        "openai-insecure-api-key.client-secret",
        "openai-organization.org-of-the-client",
        "openai-project.proj-of-the-client",
        "openai-beta.realtime-v1",
    ]
    headers = {
        name: value
        for name, value in (CREDENTIALS | FOR_UPSTREAMS).items()
        if name != "authorization"
    }
    async with (
        relayed_sockets(tmp_path, api_keys=("client-secret",)) as (far, url),
        connected(f"{url}/realtime?model=m", protocols=protocols, headers=headers),
    ):
        pass

    (asked,) = far.opened
    assert asked.scope["subprotocols"] == ["realtime", "openai-beta.realtime-v1"]
    own = {"host", "connection", "upgrade", "authorization", "accept-encoding"}
    got = {name for name in asked.headers if not name.startswith("sec-websocket-")}
    assert got - own == set(FOR_UPSTREAMS)
    assert "client-secret" not in str(asked.headers)


async def test_a_websockets_handshake_follows_no_redirect_with_the_operators_key(tmp_path):
    async with FakeUpstream() as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.port}/v1/realtime"
        answer = answering({"location": target}, "307 Elsewhere", b"")
        async with (
            FakeUpstream(answer=answer) as fake,
            served_with_sockets(tmp_path, backend(fake, "a", headers={"x-key": "k2"})) as url,
        ):
            with pytest.raises(WSServerHandshakeError) as refused:
                async with connected(f"{url}/realtime?model=m"):
                    pass

    assert refused.value.status == 502
    assert fake.requests
    assert elsewhere.requests == []


async def test_an_upstreams_list_of_models_is_not_looked_for_elsewhere():
    async with FakeUpstream() as elsewhere:
        target = f"http://127.0.0.1:{elsewhere.port}/v1/models"
        answer = answering({"location": target}, "302 Found", b"")
        async with FakeUpstream(answer=answer) as fake, upstream_of(fake) as upstream:
            with pytest.raises(Exception, match="redirect"):
                await upstream.models()

    assert elsewhere.requests == []
