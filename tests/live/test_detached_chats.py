"""Detached chats: answered and stored without their client, followed again, cancelled."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.patience import wait_until
from tests.serving import Served, serve

SHORT = {
    "model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "stream": True,
    "store": True, "max_tokens": 20, "ignore_eos": True, "metadata": {"title": "Hello!"},
}  # fmt: skip
ENDLESS = {**SHORT, "max_tokens": 10_000_000}
WITHOUT_END = {"LLM_BACKEND_CONTEXT_SHIFT_TOKENS": "10000000"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that answers one chat after the other."""
    environment = {**WITHOUT_END, "LLM_BACKEND_SLOTS": "1"}
    with serve(tmp_path_factory.mktemp("server"), environment=environment) as one:
        yield one


@contextmanager
def asked(address: str, id: str, body: dict[str, object] = ENDLESS) -> Iterator[Iterator[str]]:
    """The lines of a detached chat's stream; its client disconnects at the end of the block."""
    headers = {"x-llm-backend-detached": id}
    url = f"{address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        yield answer.iter_lines()


def running(address: str) -> list[str]:
    listed = httpx.get(f"{address}/v1/chat/detached").json()["data"]
    return [one["id"] for one in listed]


@contextmanager
def follow(address: str, id: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a detached chat until `[DONE]`."""
    with httpx.stream("GET", f"{address}/v1/chat/detached/{id}", timeout=60) as answer:
        yield _events(answer.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line == "data: [DONE]":
            return
        if line:
            yield json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended without its end")


def wait_stored(client: openai.OpenAI, id: str) -> ChatCompletion:
    """The chat, which is stored behind its answer."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.chat.completions.retrieve(id)
        except openai.NotFoundError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_detached_chat_is_answered_without_its_client_and_followed(server, client):
    id, before = uuid4().hex, uuid4().hex
    with asked(server.address, before) as lines:
        next(lines)  # the other chat waits until this one is cancelled
        leaving = HTTPConnection(server.address.removeprefix("http://"))
        headers = {"x-llm-backend-detached": id, "content-type": "application/json"}
        leaving.request("POST", "/v1/chat/completions", json.dumps(SHORT), headers)
        wait_until(lambda: id in running(server.address))
        leaving.close()
        with follow(server.address, id) as events:
            chat = next(events)
            httpx.post(f"{server.address}/v1/chat/detached/{before}/cancel")
            chunks = list(events)

    assert (chat["id"], chat["model"]) == (id, "builtin")
    assert chat["messages"] == SHORT["messages"]
    stored = wait_stored(client, chunks[0]["id"])
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    assert stored.choices[0].message.content == text
    assert stored.usage.completion_tokens == 20
    url = f"{server.address}/v1/chat/detached/{id}"
    wait_until(lambda: httpx.get(url).status_code == 404)
    assert httpx.get(url).json()["error"]["code"] == "not_found"


def test_a_detached_chat_is_cancelled_and_its_text_so_far_is_stored(server, client):
    id = uuid4().hex
    with asked(server.address, id) as lines:
        first = json.loads(next(lines).removeprefix("data: "))
    assert id in running(server.address)
    with follow(server.address, id) as events:
        assert next(events)["id"] == id
        assert next(events) == first
    cancelled = httpx.post(f"{server.address}/v1/chat/detached/{id}/cancel")

    assert cancelled.json()["id"] == id
    assert wait_stored(client, first["id"]).model_extra["status"] == "incomplete"
    wait_until(lambda: id not in running(server.address))


def test_a_cancelled_chat_is_listed_until_it_is_stored(server, client):
    for _ in range(10):
        id = uuid4().hex
        with asked(server.address, id) as lines:
            first = json.loads(next(lines).removeprefix("data: "))
        httpx.post(f"{server.address}/v1/chat/detached/{id}/cancel")
        while id in running(server.address):
            pass

        assert client.chat.completions.retrieve(first["id"]).model_extra["status"] == "incomplete"


def test_the_id_of_a_detached_chat_is_used_once_and_well_formed(server):
    id = uuid4().hex
    with asked(server.address, id) as lines:
        next(lines)
        with asked(server.address, id) as refused:
            conflict = json.loads("".join(refused))
        httpx.post(f"{server.address}/v1/chat/detached/{id}/cancel")
    with asked(server.address, "a b") as refused:
        invalid = json.loads("".join(refused))

    assert "still being answered" in conflict["error"]["message"]
    assert invalid["error"]["param"] == "x-llm-backend-detached"


@pytest.mark.parametrize("stream", [{"stream": False}, {}])
def test_a_chat_that_is_no_stream_cannot_be_detached(server, stream):
    body = {name: value for name, value in SHORT.items() if name != "stream"} | stream
    refused = httpx.post(
        f"{server.address}/v1/chat/completions",
        json=body,
        headers={"x-llm-backend-detached": uuid4().hex},
    )

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "x-llm-backend-detached"
    assert "`stream: true`" in refused.json()["error"]["message"]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {
        **WITHOUT_END,
        "LLM_BACKEND_API_KEYS": "sk-operator",
        "LLM_BACKEND_DETACHED_CHATS_LIMIT": "2",
        "LLM_BACKEND_DETACHED_CHAT_BYTES": "1024",
    }
    with serve(tmp_path_factory.mktemp("detached"), environment=environment) as one:
        yield one


AS_OPERATOR = {"authorization": "Bearer sk-operator"}


def test_requests_whose_bodies_do_not_arrive_take_no_places(bounded):
    host, port = bounded.address.removeprefix("http://").split(":")
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\nauthorization: Bearer sk-operator\r\n"
        "content-type: application/json\r\ncontent-length: 100\r\nx-llm-backend-detached: {}"
    )
    with ExitStack() as stack:
        for _ in range(2):
            one = stack.enter_context(socket.create_connection((host, int(port))))
            one.sendall((head.format(uuid4().hex) + "\r\n\r\n{").encode())
        url = f"{bounded.address}/metrics"
        wait_until(  # with the one that asks
            lambda: "in_flight 3.0" in httpx.get(url, headers=AS_OPERATOR).text
        )
        answer = httpx.post(
            f"{bounded.address}/v1/chat/completions",
            json=SHORT,
            headers={**AS_OPERATOR, "x-llm-backend-detached": uuid4().hex},
        )

    assert answer.status_code == 200, answer.text


def test_detached_chats_are_bounded_and_are_of_their_project(bounded):
    as_operator = AS_OPERATOR
    made = httpx.post(
        f"{bounded.address}/v1/organization/projects", json={"name": "b"}, headers=as_operator
    ).json()
    account = httpx.post(
        f"{bounded.address}/v1/organization/projects/{made['id']}/service_accounts",
        json={"name": "phone"},
        headers=as_operator,
    ).json()
    foreign = {"authorization": f"Bearer {account['api_key']['value']}"}
    url, id = f"{bounded.address}/v1/chat", uuid4().hex
    with httpx.stream(
        "POST", f"{url}/completions", json=ENDLESS, timeout=60,
        headers={**as_operator, "x-llm-backend-detached": id},
    ) as answer:  # fmt: skip
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
        other = {**as_operator, "x-llm-backend-detached": uuid4().hex}
        shared = httpx.post(f"{url}/completions", json=ENDLESS, headers=other)
        too_long = httpx.get(f"{url}/detached/{id}", headers=as_operator)
        hidden = httpx.get(f"{url}/detached/{id}", headers=foreign)
        none = httpx.get(f"{url}/detached", headers=foreign)
        refused = httpx.get(f"{url}/detached")
        with httpx.stream(
            "POST", f"{url}/completions", json=ENDLESS, timeout=60,
            headers={**foreign, "x-llm-backend-detached": (second := uuid4().hex)},
        ) as answer_there:  # fmt: skip
            next(answer_there.iter_lines())
            full = httpx.post(f"{url}/completions", json=ENDLESS, headers=other)
            httpx.post(f"{url}/detached/{second}/cancel", headers=foreign)
        httpx.post(f"{url}/detached/{id}/cancel", headers=as_operator)

    assert (shared.status_code, shared.headers["retry-after"]) == (429, "1")
    assert (full.status_code, full.headers["retry-after"]) == (503, "1")
    assert (too_long.status_code, hidden.status_code) == (400, 404)
    assert (none.json()["data"], refused.status_code) == ([], 401)
