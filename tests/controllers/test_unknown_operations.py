"""Operations that the document does not have are relayed under `/v1`, or refused by their path."""

import json

import pytest

from llm_backend.contract import load_document
from llm_backend.contract.unknown_operation import UnknownPaths
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, Message, post

ANSWER = b'{"object":"webhook_endpoint"}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
KEY = b"authorization: Bearer mine\r\n"


def get(path: str, more: bytes = b"", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: relay\r\n".encode() + more + b"\r\n"


def error_of(got: Message) -> dict[str, str]:
    return json.loads(got.body)["error"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/v1/models", "begins with `/v1` twice"),
        ("/v1/unheard_of", "set OPENAI_API_KEY or `backends`"),
        ("/v1/a%2Fb/c%20d/", "no such operation is known"),
        ("/nowhere", "begin with /v1/"),
        ("/v1x", "begin with /v1/"),
        ("/v1/realtime", "it is a WebSocket"),
    ],
)
async def test_without_an_upstream_the_error_has_the_path_as_sent(tmp_path, path, reason):
    async with gateway(tmp_path) as served:
        got = await served.ask(get(path))

    error = error_of(got)
    assert (got.status, error["code"]) == (404, "unknown_url")
    assert error["message"].startswith(f"There is no GET {path} here")
    assert reason in error["message"]


async def test_an_operation_of_ollama_that_is_not_answered_is_refused_in_its_form(tmp_path):
    async with gateway(tmp_path) as served:
        got = await served.ask(get("/api/blobs/x"))

    assert got.status == 404
    assert json.loads(got.body)["error"] == (
        "There is no GET /api/blobs/x here; this part of Ollama's API is not answered."
    )


async def test_an_unknown_operation_is_relayed_as_it_is(tmp_path):
    body = b'{"url":"https://a.example", "big":12345678901234567890}'
    sent = [
        post(body, path="/v1/unheard_of?dry=1", more=KEY),
        get("/v1/unheard_of/we_1/", KEY),
        get("/v1/unheard_of/we_1", KEY, "DELETE"),
        post(b"\x00\xff", path="/v1/unheard_of/calls", more=KEY).replace(b"/json", b"/sdp"),
    ]
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")], api_keys=("mine",)) as served,
    ):
        answers = [await served.ask(one) for one in sent]

    assert {(got.status, got.body) for got in answers} == {(200, ANSWER)}
    assert [request.first_line.split()[:2] for request in fake.requests] == [
        [b"POST", b"/v1/unheard_of?dry=1"],
        [b"GET", b"/v1/unheard_of/we_1"],
        [b"DELETE", b"/v1/unheard_of/we_1"],
        [b"POST", b"/v1/unheard_of/calls"],
    ]
    assert [request.body for request in fake.requests] == [body, b"", b"", b"\x00\xff"]
    assert all(request.values(b"authorization") == [b"Bearer k"] for request in fake.requests)


async def test_unknown_operations_are_relayed_by_the_model(tmp_path):
    async with (
        FakeUpstream(answer=OK) as one,
        FakeUpstream(answer=OK) as other,
        gateway(
            tmp_path,
            backends=[backend(one, "a"), backend(other, "b", "far")],
            routes={"r": "far"},
        ) as served,
    ):
        await served.ask(post(b'{"model":"r"}', path="/v1/unheard_of"))

    assert one.requests == []
    assert [request.body for request in other.requests] == [b'{"model":"far"}']


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        (get("/v1/unheard_of"), 401, "needs an API key"),
        (get("/v1/unheard_of", b"authorization: Bearer other\r\n"), 401, ""),
        (get("/v1/v1/models", KEY), 404, "begins with `/v1` twice"),
        (get("/nowhere", KEY), 404, "begin with /v1/"),
        (get("/v1/organization/unheard_of", KEY), 404, "administers"),
        (get("/v1/%6Frganization/unheard_of", KEY), 404, "administers"),
        (get("/v1/%256Frganization/unheard_of", KEY), 404, "administers"),
        (get("/v1/organization%2Funheard_of", KEY), 404, "administers"),
        (get("/v1//Organization//unheard_of", KEY), 404, "administers"),
        (get("/v1//v1/models", KEY), 404, "begins with `/v1` twice"),
        (get("/v1/unheard_of", KEY, "PURGE"), 404, "this method is not relayed"),
        (get("/v1/a/../organization/users", KEY), 400, "segments"),
        (get("/v1/a/%2e%2e/organization/users", KEY), 400, "segments"),
        (post(b"{no", path="/v1/unheard_of", more=KEY), 400, "JSON"),
        (post(b'{"model":"none"}', path="/v1/unheard_of", more=KEY), 404, "none"),
    ],
)
async def test_unrelayed_operations_are_refused_before_the_upstream(tmp_path, asked, status, said):
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a", "m")], api_keys=("mine",)) as served,
    ):
        got = await served.ask(asked)

    assert got.status == status
    assert said in error_of(got)["message"]
    assert fake.requests == []


async def test_a_strict_server_relays_only_what_the_document_has(tmp_path):
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")], strict=True) as served,
    ):
        got = await served.ask(get("/v1/unheard_of"))

    assert got.status == 404
    assert "`strict`" in error_of(got)["message"]
    assert fake.requests == []


async def test_the_same_key_for_two_unknown_operations_is_two_requests(tmp_path):
    once = b"idempotency-key: once\r\n"
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        for path in ("/v1/unheard_of", "/v1/unheard_of", "/v1/unheard_of_too"):
            await served.ask(post(path=path, more=once))

    targets = [request.first_line.split()[1] for request in fake.requests]
    assert targets == [b"/v1/unheard_of", b"/v1/unheard_of_too"]


async def test_no_path_that_administers_can_be_had_by_an_operation_that_is_not_known():
    operations = load_document().operations.values()
    administered = {f"/v1{one.path}" for one in operations if one.administers}
    paths = UnknownPaths(None)
    ours = ("/v1/models/", "/v1/loadModel", "/v1/unloadModel", "/v1/api/")  # no upstream's
    for path in administered:
        if not path.startswith(ours):
            scope = {"method": "GET", "state": {"sent_path": f"{path}/more"}}
            assert paths.operation(scope) is None, path
