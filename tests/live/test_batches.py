"""Batches through the official client: made, run beside other requests, survived by their lines."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import Batch

from tests.live.test_files import NO_MODEL, client_of
from tests.postgresql import PostgresqlServer
from tests.serving import serve

CHATS = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello!"}]
BODIES: dict[str, list[dict[str, Any]]] = {
    CHATS: [
        {"messages": HELLO, "max_tokens": 2},
        {"messages": HELLO, "max_tokens": 2, "service_tier": "flex"},
        {"messages": []},
        {"model": "none"},
    ],
    "/v1/completions": [{"prompt": "One, two", "max_tokens": 2}, {}],
    "/v1/responses": [{"input": "Hello!", "max_output_tokens": 16}, {"input": 7}],
    "/v1/embeddings": [{"input": "Hello!"}, {"input": ""}],
    "/v1/moderations": [{"input": "Hello!"}, {"input": []}],
}
ENDS = {"completed", "failed", "expired", "cancelled"}
UPSTREAM_S = 0.02  # that a line takes there


def input_of(endpoint: str, bodies: list[dict[str, Any]]) -> bytes:
    lines = (
        {
            "custom_id": str(number),
            "method": "POST",
            "url": endpoint,
            "body": {"model": "builtin", **body},
        }
        for number, body in enumerate(bodies)
    )
    return "\n".join(map(json.dumps, lines)).encode()


def begin(client: openai.OpenAI, endpoint: str, text: bytes, **fields: Any) -> Batch:
    file = client.files.create(file=("in.jsonl", text), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + 240
    while (batch := client.batches.retrieve(batch.id)).status not in ENDS:
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


@pytest.mark.parametrize("endpoint", BODIES)
def test_a_line_is_answered_as_the_request_it_is(client, server, endpoint):
    bodies = BODIES[endpoint]
    batch = ended(client, begin(client, endpoint, input_of(endpoint, bodies)))
    direct = [
        httpx.post(f"{server.address}{endpoint}", json={"model": "builtin", **body}, timeout=60)
        for body in bodies
    ]

    output, errors = (lines_of(client, id) for id in (batch.output_file_id, batch.error_file_id))
    answers = {line["custom_id"]: line["response"] for line in (*output, *errors)}
    assert batch.status == "completed"
    assert batch.request_counts.total == len(bodies)
    assert batch.request_counts.completed == len(output)
    for number, one in enumerate(direct):
        answer = answers[str(number)]
        assert answer["status_code"] == one.status_code
        assert answer["request_id"].startswith("req_")
        assert answer["body"].keys() == one.json().keys()
        assert answer["body"].get("service_tier") == one.json().get("service_tier")
        if one.status_code != 200:
            assert answer["body"] == one.json()


def test_a_batch_object_has_its_input_and_results(client):
    expiry = {"anchor": "created_at", "seconds": 7200}
    text = input_of(CHATS, [{"messages": HELLO, "max_tokens": 2}])
    made = begin(client, CHATS, text, metadata={"for": "me"}, output_expires_after=expiry)
    batch = ended(client, made)

    assert made.status == "validating"
    assert (made.endpoint, made.completion_window, made.metadata) == (CHATS, "24h", {"for": "me"})
    assert made.expires_at == made.created_at + 24 * 3600
    assert made.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.model == "builtin"
    assert batch.usage.output_tokens == 2
    assert batch.usage.total_tokens == batch.usage.input_tokens + 2
    file = client.files.retrieve(batch.output_file_id)
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert file.expires_at == file.created_at + 7200


def test_pages_of_batches_come_newest_first(client):
    made = [begin(client, CHATS, b"no").id for _ in range(3)]

    listed = [batch.id for _, batch in zip(made, client.batches.list(limit=2), strict=False)]

    assert listed == made[::-1]


def test_mistakes_are_named(client):
    notes = client.files.create(file=b"x", purpose="user_data")
    done = ended(client, begin(client, CHATS, b"no"))

    with pytest.raises(openai.NotFoundError, match="file-none") as wrong:
        client.batches.create(input_file_id="file-none", endpoint=CHATS, completion_window="24h")
    assert wrong.value.param == "input_file_id"
    with pytest.raises(openai.BadRequestError, match="user_data") as refused:
        client.batches.create(input_file_id=notes.id, endpoint=CHATS, completion_window="24h")
    assert refused.value.param == "input_file_id"
    for ask in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(openai.NotFoundError, match="batch_none"):
            ask("batch_none")
    with pytest.raises(openai.BadRequestError, match="limit"):
        client.batches.list(limit=101)
    with pytest.raises(openai.ConflictError, match="failed"):
        client.batches.cancel(done.id)
    assert [(error.line, error.code) for error in done.errors.data] == [(1, "invalid_json_line")]


class Upstream(ThreadingHTTPServer):
    """Answers every chat after a while, and counts those of each message."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.asked: list[str] = []
        self.keys: set[str] = set()  # of the servers that asked


class _Chat(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body["messages"][0]["content"])
        self.server.keys.add(self.headers["authorization"].removeprefix("Bearer "))
        time.sleep(UPSTREAM_S)
        answer = json.dumps({"id": "chatcmpl-x", "said": body["messages"][0]["content"]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def environment_of(upstream: Upstream) -> dict[str, str]:
    return {
        "OPENAI_API_KEY": "sk",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream.server_port}/v1",
        "LLM_BACKEND_BATCH_CONCURRENCY": "4",
        "LLM_BACKEND_STORE_CHATS": "never",
    }


def test_no_line_is_lost_or_answered_twice_when_the_server_is_killed(
    upstream: Upstream, tmp_path: Path
):
    number, kills = 300, (1, 60, 120)  # numbers of requested lines at which the server is killed
    bodies = [
        {"model": "far", "messages": [{"role": "user", "content": str(one)}]}
        for one in range(number)
    ]
    batch = None
    environment = {**environment_of(upstream), "LLM_BACKEND_JOB_LEASE_S": "3600"}  # not waited for
    for asked in kills:
        with serve(tmp_path, *NO_MODEL, environment=environment) as served:
            batch = batch or begin(client_of(served), CHATS, input_of(CHATS, bodies))
            while len(upstream.asked) < asked:
                time.sleep(0.01)
            served.process.kill()
            served.process.wait()
    with serve(tmp_path, *NO_MODEL, environment=environment) as served:
        client = client_of(served)
        batch = ended(client, batch)
        output = lines_of(client, batch.output_file_id)

    assert [line["custom_id"] for line in output] == [str(one) for one in range(number)]
    assert all(line["response"]["body"]["said"] == line["custom_id"] for line in output)
    assert batch.request_counts.completed == number
    assert len(upstream.asked) <= number + 4 * len(kills)  # what was being asked is asked again


def test_servers_share_a_batch_and_one_goes_on_with_the_lines_of_a_killed_one(
    upstream: Upstream, postgresql_server: PostgresqlServer, tmp_path: Path
):
    number = 600  # more than one server claims at once
    bodies = [
        {"model": "far", "messages": [{"role": "user", "content": str(one)}]}
        for one in range(number)
    ]
    environment = {
        **environment_of(upstream),
        "DATABASE_URL": postgresql_server.new_database(),
        "LLM_BACKEND_OBJECT_STORE_URL": (tmp_path / "files").as_uri(),
        "LLM_BACKEND_JOB_LEASE_S": "1",
    }
    with (
        serve(tmp_path / "one", *NO_MODEL, environment=environment) as one,
        serve(
            tmp_path / "two", *NO_MODEL, environment={**environment, "OPENAI_API_KEY": "two"}
        ) as two,
    ):
        client = client_of(two)
        batch = begin(client_of(one), CHATS, input_of(CHATS, bodies))
        while client.batches.retrieve(batch.id).request_counts.completed < 20:
            time.sleep(0.02)
        begin(client, CHATS, b"no")  # so that this one looks for work before its next turn
        deadline = time.monotonic() + 60
        while upstream.keys != {"sk", "two"}:
            assert time.monotonic() < deadline, "the other server takes no part"
            time.sleep(0.02)
        one.process.kill()
        batch = ended(client, batch)
        output = lines_of(client, batch.output_file_id)

    assert batch.request_counts.completed == number
    assert [line["custom_id"] for line in output] == [str(one) for one in range(number)]
