"""A request finds who answers it, and the next one where one cannot."""

import asyncio
import json
import sys
from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers
from starlette.responses import Response

from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import UpstreamModel
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.errors import InvalidRequest, ServiceUnavailable, UpstreamFailed
from llm_backend.extras import install_command
from tests.gateway import backend, gateway
from tests.handles import idle_handle
from tests.upstream import Connection, FakeUpstream, Message, post

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}], "x": 1.50, "model": "%b"}'
OK = b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[]}'
BROKEN = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"


def ok(body: bytes = OK) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


async def test_each_model_is_routed_to_its_upstreams(tmp_path):
    async with FakeUpstream(answer=ok(b'{"a":1}')) as a, FakeUpstream(answer=ok()) as b:
        backends = [backend(a, "a", "one"), backend(b, "b", "two*")]
        async with gateway(tmp_path, backends=backends) as served:
            first = await served.ask(post(CHAT % b"one"))
            await served.ask(post(CHAT % b"two-large"))
            nobody = await served.ask(post(CHAT % b"three"))

    assert first.body == b'{"a":1}'
    assert [request.body for request in a.requests] == [CHAT % b"one"]
    assert [request.body for request in b.requests] == [CHAT % b"two-large"]
    assert nobody.status == 404
    assert json.loads(nobody.body)["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("has_upstream", [False, True])
async def test_model_of_the_missing_engine_is_not_found(tmp_path, monkeypatch, has_upstream):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    async with FakeUpstream(answer=ok()) as far:
        upstreams = {"backends": [backend(far, "far", "one")]} if has_upstream else {}
        async with gateway(tmp_path, **upstreams) as served:
            chat = await served.ask(post(CHAT % b"builtin"))
            card = await served.ask(b"GET /v1/models/builtin HTTP/1.1\r\nhost: relay\r\n\r\n")

    for answer in (chat, card):
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (404, "model_not_found")
        assert error["message"].endswith(f"is not installed: {install_command('local')}.")


async def test_a_route_falls_back_and_renames(tmp_path):
    async with FakeUpstream(answer=BROKEN) as a, FakeUpstream(answer=ok()) as b:
        backends = [backend(a, "a", "one"), backend(b, "b", "two")]
        routes = {"smart": "one, two"}
        async with gateway(tmp_path, backends=backends, routes=routes) as served:
            answer = await served.ask(post(CHAT % b"smart"))

    assert (answer.status, answer.body) == (200, OK)
    assert [request.body for request in a.requests] == [CHAT % b"one"]
    assert [request.body for request in b.requests] == [CHAT % b"two"]


@pytest.mark.parametrize(
    "path", ["/v1/responses/compact", "/v1/responses/input_tokens", "/v1/responses?beta=true"]
)
async def test_operations_beside_responses_use_the_steps_of_a_route(tmp_path, path):
    body = b'{"input": "Hi", "model": "%b"}'
    async with FakeUpstream(answer=BROKEN) as a, FakeUpstream(answer=ok(b'{"a":1}')) as b:
        settings: dict[str, object] = {"backends": [backend(a, "a", "one"), backend(b, "b", "two")]}
        async with gateway(tmp_path, **settings, routes={"pair": "one, two"}) as served:
            answer = await served.ask(post(body % b"pair", path=path))

    assert (answer.status, answer.body) == (200, b'{"a":1}')
    assert [request.body for request in a.requests] == [body % b"one"]
    assert [request.body for request in b.requests] == [body % b"two"]


async def test_the_last_steps_failure_is_the_answer(tmp_path):
    async with FakeUpstream(answer=BROKEN) as a:
        settings: dict[str, object] = {
            "backends": [backend(a, "a", "one")],
            "routes": {"smart": "one@a, one"},
        }
        async with gateway(tmp_path, **settings) as served:
            answer = await served.ask(post(CHAT % b"smart"))

    assert answer.status == 500
    assert len(a.requests) == 2


@pytest.mark.parametrize("has_key", [False, True])
async def test_no_further_target_gets_a_request_with_an_idempotency_key_that_may_be_processed(
    tmp_path, has_key
):
    async def silence(_: Message, __: Connection) -> None:
        await asyncio.Event().wait()

    headers = b"idempotency-key: k\r\n" if has_key else b""
    async with FakeUpstream(answer=silence) as a, FakeUpstream(answer=ok()) as b:
        backends = [{**backend(a, "a", "one"), "idle_timeout_s": 0.2}, backend(b, "b", "two")]
        routes = {"smart": "one, two"}
        async with gateway(tmp_path, backends=backends, routes=routes) as served:
            answer = await served.ask(post(CHAT % b"smart", more=headers))

    assert (answer.status, len(b.requests)) == ((504, 0) if has_key else (200, 1))


@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize(
    ("status", "is_repeated"),
    [(429, True), (503, True), (529, True), (500, False), (502, False), (504, False)],
)
async def test_request_with_an_idempotency_key_is_repeated_only_if_nothing_was_done(
    tmp_path, wire, status, is_repeated
):
    failed = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}" % status
    key = b"idempotency-key: k\r\n"
    async with (
        FakeUpstream(answer=failed) as a,
        FakeUpstream(answer=failed) as twin,
        FakeUpstream(answer=ok()) as b,
    ):
        backends = [
            {**backend(a, "a", "one"), "wire": wire},
            {**backend(twin, "twin", "one"), "wire": wire},
            backend(b, "b", "two"),
        ]
        async with gateway(tmp_path, backends=backends, routes={"smart": "one, two"}) as served:
            answer = await served.ask(
                post(b'{"messages":[{"role":"user","content":"Hi"}],"model":"smart"}', more=key)
            )

    sent = len(a.requests) + len(twin.requests)
    assert (sent, len(b.requests)) == ((2, 1) if is_repeated else (1, 0))
    assert answer.status == 200 if is_repeated else answer.status >= 500


async def test_operations_are_routed_by_the_settings(tmp_path):
    async with FakeUpstream(answer=ok()) as a, FakeUpstream(answer=ok()) as art:
        settings: dict[str, object] = {"backends": [backend(a, "a"), backend(art, "art")]}
        settings["operations"] = {"Images": "art"}
        async with gateway(tmp_path, **settings) as served:
            await served.ask(post(b'{"prompt": "a cat"}', path="/v1/images/generations"))
            await served.ask(post(b"{}", path="/v1/threads"))

    assert [request.first_line.split()[1] for request in art.requests] == [
        b"/v1/images/generations"
    ]
    assert [request.first_line.split()[1] for request in a.requests] == [b"/v1/threads"]


async def test_routes_and_the_models_of_all_are_listed(tmp_path):
    listed = ok(b'{"object":"list","data":[{"id":"one","object":"model"}]}')
    async with FakeUpstream(answer=listed) as a, FakeUpstream(answer=BROKEN) as b:
        settings: dict[str, object] = {
            "backends": [backend(a, "a"), backend(b, "b")],
            "routes": {"smart": "one"},
        }
        async with gateway(tmp_path, **settings) as served:
            answer = await served.ask(b"GET /v1/models HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert [model["id"] for model in json.loads(answer.body)["data"]] == ["smart", "one"]


def near(tmp_path) -> LocalModel:
    card = ModelCard(id="near", created_at=1, owned_by="test")
    return LocalModel(card, idle_handle("near", tmp_path / "near"))


async def asked(targets, *, local, relay_with) -> Response:
    services = SimpleNamespace(registry=SimpleNamespace(targets=lambda _name, _operation: targets))
    operation = SimpleNamespace(operation_id="createChatCompletion", tag="Chat")
    request = SimpleNamespace(
        body={"model": "m"},
        operation=operation,
        request_id="r",
        meter=None,
        http=SimpleNamespace(headers=Headers()),
    )
    return await answer_by_route(services, request, local=local, relay_with=relay_with)


async def answers(*_: object, **__: object) -> Response:
    return Response("answered")


async def is_full(*_: object) -> Response:
    raise ServiceUnavailable("full")


async def is_down(*_: object, **__: object) -> Response:
    raise UpstreamFailed("down")


async def test_an_overloaded_local_model_falls_back_to_an_upstream(tmp_path):
    targets = [near(tmp_path), UpstreamModel(model="far")]

    assert (await asked(targets, local=is_full, relay_with=answers)).body == b"answered"


async def test_an_unavailable_upstream_falls_back_to_a_local_model(tmp_path):
    targets = [UpstreamModel(model="far"), near(tmp_path)]

    assert (await asked(targets, local=answers, relay_with=is_down)).body == b"answered"


async def test_a_wrong_request_is_wrong_at_the_first_target(tmp_path):
    async def refuses(*_: object) -> Response:
        raise InvalidRequest("wrong")

    with pytest.raises(InvalidRequest):
        await asked([near(tmp_path), UpstreamModel(model="f")], local=refuses, relay_with=answers)
