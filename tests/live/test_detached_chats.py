"""Detached chats: answered and stored without their client, followed again, cancelled."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from uuid import uuid4

import httpx
import openai
import pytest

from tests.serving import Served, serve

LONG = {
    "model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "stream": True,
    "store": True, "max_tokens": 800, "ignore_eos": True, "metadata": {"title": "Hello!"},
}  # fmt: skip


@contextmanager
def asked(address: str, id: str, body: dict[str, object] = LONG) -> Iterator[Iterator[str]]:
    """The lines of a detached chat's stream; its client disconnects at the end of the block."""
    headers = {"x-llm-backend-detached": id}
    url = f"{address}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        yield answer.iter_lines()


def running(address: str) -> list[str]:
    listed = httpx.get(f"{address}/v1/chat/detached").json()["data"]
    return [one["id"] for one in listed]


def followed(address: str, id: str) -> list[dict[str, object]]:
    """The events of a detached chat until `[DONE]`."""
    events = []
    with httpx.stream("GET", f"{address}/v1/chat/detached/{id}", timeout=60) as answer:
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return events
            if line:
                events.append(json.loads(line.removeprefix("data: ")))
    raise AssertionError(f"the stream ended without its end, after {len(events)} events")


def test_a_detached_chat_is_answered_without_its_client_and_followed(server, client):
    id = uuid4().hex
    with asked(server.address, id) as lines:
        first = json.loads(next(lines).removeprefix("data: "))
    assert running(server.address) == [id]

    chat, *chunks = followed(server.address, id)

    assert (chat["id"], chat["model"]) == (id, "builtin")
    assert chat["messages"] == LONG["messages"]
    assert chunks[0] == first
    stored = client.chat.completions.retrieve(first["id"])
    text = "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)
    assert stored.choices[0].message.content == text
    assert stored.usage.completion_tokens == 800
    gone = httpx.get(f"{server.address}/v1/chat/detached/{id}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "not_found")


def test_a_detached_chat_is_cancelled_and_what_was_said_is_stored(server, client):
    id = uuid4().hex
    with asked(server.address, id) as lines:
        first = json.loads(next(lines).removeprefix("data: "))
        cancelled = httpx.post(f"{server.address}/v1/chat/detached/{id}/cancel")

    assert cancelled.json()["id"] == id
    stored = None
    while stored is None:  # it is stored behind the answer
        with suppress(openai.NotFoundError):
            stored = client.chat.completions.retrieve(first["id"])
    assert stored.model_extra["status"] == "incomplete"
    assert id not in running(server.address)


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
    body = {name: value for name, value in LONG.items() if name != "stream"} | stream
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
        metrics = ""
        while "in_flight 3.0" not in metrics:  # with the one that asks
            metrics = httpx.get(f"{bounded.address}/metrics", headers=AS_OPERATOR).text
        answer = httpx.post(
            f"{bounded.address}/v1/chat/completions",
            json=LONG | {"max_tokens": 1},
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
    without_end = LONG | {"max_tokens": 3000}
    with httpx.stream(
        "POST", f"{url}/completions", json=without_end, timeout=60,
        headers={**as_operator, "x-llm-backend-detached": id},
    ) as answer:  # fmt: skip
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
        other = {**as_operator, "x-llm-backend-detached": uuid4().hex}
        shared = httpx.post(f"{url}/completions", json=LONG, headers=other)
        too_long = httpx.get(f"{url}/detached/{id}", headers=as_operator)
        hidden = httpx.get(f"{url}/detached/{id}", headers=foreign)
        none = httpx.get(f"{url}/detached", headers=foreign)
        refused = httpx.get(f"{url}/detached")
        with httpx.stream(
            "POST", f"{url}/completions", json=without_end, timeout=60,
            headers={**foreign, "x-llm-backend-detached": (second := uuid4().hex)},
        ) as answer_there:  # fmt: skip
            next(answer_there.iter_lines())
            full = httpx.post(f"{url}/completions", json=LONG, headers=other)
            httpx.post(f"{url}/detached/{second}/cancel", headers=foreign)
        httpx.post(f"{url}/detached/{id}/cancel", headers=as_operator)

    assert (shared.status_code, shared.headers["retry-after"]) == (429, "5")
    assert (full.status_code, full.headers["retry-after"]) == (503, "5")
    assert (too_long.status_code, hidden.status_code) == (400, 404)
    assert (none.json()["data"], refused.status_code) == ([], 401)
