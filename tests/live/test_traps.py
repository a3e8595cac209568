"""The known traps of servers like this one, each with its test."""

import contextlib
import json
import re
import socket
import time

import httpx
import pytest

from tests.serving import WITHOUT_END, Served

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]}


def post(server: Served, path: str, content: bytes | str, **headers: str) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    return httpx.post(f"{server.base_url}{path}", content=content, headers=sent, timeout=60)


def chat(server: Served, **fields: object) -> httpx.Response:
    return post(server, "/chat/completions", json.dumps({**CHAT, **fields}))


def test_events_are_framed_as_clients_expect(server):
    response = chat(server, stream=True, temperature=0)

    assert response.headers["content-type"].startswith("text/event-stream")
    *events, rest = response.text.split("\n\n")
    assert rest == ""
    assert all(re.fullmatch(r"data: [^\n]+", event) for event in events)
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert {(chunk["id"], chunk["created"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["created"])
    }
    assert [("role" in chunk["choices"][0]["delta"]) for chunk in chunks] == [True] + [False] * (
        len(chunks) - 1
    )
    assert all(chunk["choices"][0]["delta"].get("content", "") is not None for chunk in chunks)
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (
        len(chunks) - 1
    )
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_comes_in_a_chunk_of_its_own_only_on_request(server):
    response = chat(server, stream=True, stream_options={"include_usage": True})

    chunks = [json.loads(event[6:]) for event in response.text.split("\n\n")[:-2]]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "unknown"}, 404),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, 400),
        ({"temperature": 3}, 400),
        ({"grammar": "start: nothing"}, 400),
    ],
)
def test_a_failure_before_the_first_byte_has_a_status_even_when_streamed(server, fields, status):
    response = chat(server, stream=True, **fields)

    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_characters_of_several_bytes_are_never_cut(server):
    response = post(
        server,
        "/completions",
        json.dumps(
            {"model": "builtin", "prompt": "ü€😀" * 3, "echo": True, "max_tokens": 12,
             "temperature": 2, "stream": True, "seed": 3}
        ),
    )  # fmt: skip

    chunks = [json.loads(event[6:]) for event in response.text.split("\n\n")[:-2]]
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks)
    assert text.startswith("ü€😀" * 3)


def test_a_stop_string_never_shows_even_in_part(server):
    whole = chat(server, temperature=0).json()["choices"][0]["message"]["content"]
    stop = whole[4:9]
    response = chat(server, temperature=0, stop=stop, stream=True)

    chunks = [json.loads(event[6:]) for event in response.text.split("\n\n")[:-2]]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole[: whole.index(stop)]


def test_bodies_may_come_in_chunks(server):
    def pieces():
        for byte in json.dumps(CHAT).encode():
            yield bytes([byte])

    response = httpx.post(
        f"{server.base_url}/chat/completions",
        content=pieces(),
        headers={"content-type": "application/json"},
        timeout=60,
    )

    assert response.status_code == 200


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b'{"model": "builtin", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
        (b'{"model": "builtin", "messages": [{"role": "user", "content": "a\\u0000"}]}', 400,
         "messages[0].content"),
        (b'{"model": "builtin", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None),
        (b'{"model": "builtin", "messages": [{"role": "user", "content": 5}]}', 400,
         "messages[0].content"),
        (b'{"model": "builtin", "messages": []}', 400, "messages"),
        (b'{"model": "builtin"}', 400, "messages"),
        (b'{"model": "builtin", "messages": [{"role": "king", "content": "x"}]}', 400,
         "messages[0].role"),
        (b'{"model": "builtin", "messages": [{"role":"user","content":"x"}], "temperature": NaN}',
         400, None),
        (b"", 400, None),
        (b"null", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"model": "builtin"', 400, None),
    ],
)  # fmt: skip
def test_bad_bodies_are_clear_errors(server, content, status, param):
    response = post(server, "/chat/completions", content)

    error = response.json()["error"]
    assert response.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    if param is not None:
        assert error["param"] == param


def test_a_content_type_that_is_not_taken_is_415(server):
    response = post(server, "/chat/completions", "a=b", **{"content-type": "text/plain"})

    assert response.status_code == 415
    assert response.json()["error"]["message"]


def test_a_body_over_the_limit_is_413_and_not_held(server):
    big = b'{"model": "builtin", "x": "' + b"a" * (33 * 1024 * 1024) + b'"}'
    with contextlib.suppress(httpx.WriteError):  # the server may close before all is sent
        response = post(server, "/chat/completions", big)
        assert response.status_code == 413
        assert response.json()["error"]["message"]


def test_an_image_url_is_never_fetched(server):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.5)
        part = {
            "type": "image_url",
            "image_url": {"url": f"http://127.0.0.1:{trap.getsockname()[1]}/cat.png"},
        }
        response = chat(server, messages=[{"role": "user", "content": [part]}])

        assert response.status_code == 400
        assert response.json()["error"]["param"] == "messages[0].content[0].image_url"
        with pytest.raises(TimeoutError):
            trap.accept()


def test_the_name_of_an_upload_reaches_no_file(server):
    response = httpx.post(
        f"{server.base_url}/files",
        files={"file": ("../../evil", b"data")},
        data={"purpose": "batch"},
    )

    assert response.json()["filename"] == "../../evil"
    assert not list(server.log.parent.parent.rglob("*evil*"))


def test_deleting_without_an_id_deletes_nothing(server):
    kept = chat(server, max_tokens=1).json()["id"]
    response = httpx.delete(f"{server.base_url}/chat/completions/")

    assert response.status_code in (404, 405)
    assert httpx.get(f"{server.base_url}/chat/completions/{kept}").status_code == 200


def test_a_schema_is_refused_before_native_code_sees_it(server):
    wide = {"type": "object", "properties": {f"p{number}": {} for number in range(1001)}}
    response = chat(
        server,
        response_format={"type": "json_schema", "json_schema": {"name": "wide", "schema": wide}},
    )

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format.json_schema.schema.properties"


def test_one_request_that_fails_fails_alone(server):
    with httpx.stream(
        "POST", f"{server.base_url}/chat/completions", json={**CHAT, "stream": True}, timeout=60
    ) as good:
        assert (
            post(server, "/completions", '{"model":"builtin","prompt":[999999]}').status_code == 400
        )
        assert good.read().endswith(b"data: [DONE]\n\n")


def test_a_client_that_leaves_frees_the_engine_and_its_chat_is_kept_as_incomplete(
    endless_server,
):
    server = endless_server
    body = {**CHAT, **WITHOUT_END, "stream": True}
    with httpx.stream(
        "POST", f"{server.base_url}/chat/completions", json=body, timeout=60
    ) as stream:
        first = next(line for line in stream.iter_lines() if line.startswith("data: "))
    chat_id = json.loads(first[6:])["id"]

    deadline = time.monotonic() + 60
    while (kept := httpx.get(f"{server.base_url}/chat/completions/{chat_id}")).status_code == 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert kept.json()["status"] == "incomplete"
    assert chat(server, max_tokens=1).status_code == 200


def test_unknown_paths_and_methods_are_errors_like_openais(server):
    for response in (
        httpx.get(f"{server.base_url}/nothing/here"),
        httpx.get(f"{server.address}/nothing"),
        httpx.put(f"{server.base_url}/models"),
        httpx.patch(f"{server.base_url}/models"),
    ):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_base_urls_with_and_without_the_version_both_work(server):
    assert (
        httpx.get(f"{server.address}/models").json()
        == httpx.get(f"{server.base_url}/models").json()
    )


def test_every_answer_names_its_request(server):
    for path in ("/models", "/nothing", "/images/generations"):
        assert httpx.get(f"{server.base_url}{path}").headers["x-request-id"]


def test_a_web_page_of_another_host_cannot_use_an_open_server(server):
    response = httpx.get(f"{server.base_url}/models", headers={"host": "evil.example"})

    assert response.status_code == 403
    assert "evil.example" in response.json()["error"]["message"]


def test_a_message_that_looks_like_control_tokens_is_text(client):
    counts = [
        client.chat.completions.create(
            model="builtin", max_tokens=1, messages=[{"role": "user", "content": "Hi" + more}]
        ).usage.prompt_tokens
        for more in ("", "<|im_end|>" * 10)
    ]

    assert counts[1] - counts[0] > 20
