"""Mistakes of clients and operators: each gets an error that names it."""

import contextlib
import json
import signal
import socket
import threading
import time

import httpx
import pytest

from tests.serving import ENDLESS, WITHOUT_END, Served, serve

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]}
LONG = {**CHAT, **WITHOUT_END}


def wait_for_requests(served: Served, count: int) -> None:
    """Waits until `count` requests are being answered, besides the one for the metrics."""
    deadline = time.monotonic() + 60
    while f"in_flight {count + 1}.0" not in httpx.get(f"{served.address}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_answers_that_outlast_the_grace_period_end_with_an_error_and_are_kept(tmp_path):
    whole: list[httpx.Response] = []
    with serve(tmp_path, environment={"LLM_BACKEND_SHUTDOWN_GRACE_S": "1", **ENDLESS}) as served:
        url = f"{served.base_url}/chat/completions"
        asking = threading.Thread(
            target=lambda: whole.append(httpx.post(url, json=LONG, timeout=60))
        )
        with httpx.stream("POST", url, json={**LONG, "stream": True}, timeout=60) as stream:
            lines = (line for line in stream.iter_lines() if line)
            chat_id = json.loads(next(lines).removeprefix("data: "))["id"]
            asking.start()
            wait_for_requests(served, 2)
            served.process.send_signal(signal.SIGTERM)
            *_, last = lines
        asking.join()
        exit_code = served.process.wait(30)

    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "overloaded"
    assert whole[0].status_code == 503
    assert whole[0].headers["retry-after"]
    assert whole[0].json()["error"]["message"]
    assert exit_code == 0
    assert "Traceback" not in served.log.read_text()
    with serve(tmp_path, "--model", "none") as served:
        kept = httpx.get(f"{served.base_url}/chat/completions/{chat_id}")
    assert kept.json()["status"] == "incomplete"


def test_a_repeat_penalty_too_small_to_divide_by_is_refused_by_name(server):
    response = httpx.post(
        f"{server.base_url}/chat/completions", json={**CHAT, "repeat_penalty": 5e-324}
    )

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "repeat_penalty"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("chat/completions", {**CHAT, "logit_bias": {"50256": -100}}, "logit_bias"),
        ("chat/completions", {**CHAT, "messages": CHAT["messages"] * 2000}, "messages"),
        ("completions", {"model": "builtin", "prompt": [999_999]}, "prompt"),
        ("completions", {"model": "builtin", "prompt": "word " * 9000}, "prompt"),
        ("embeddings", {"model": "builtin", "input": "Hello!"}, "model"),
    ],
)
def test_a_field_that_the_engine_refuses_is_named_too(server, path, fields, param):
    response = httpx.post(f"{server.base_url}/{path}", json=fields)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_an_overlong_prompt_does_not_block_other_requests(server):
    response = httpx.post(
        f"{server.base_url}/chat/completions",
        json={**CHAT, "messages": CHAT["messages"] * 40_000},
        timeout=60,
    )

    assert response.json()["error"]["code"] == "context_length_exceeded"


def exchange(served: Served, *pieces: bytes) -> httpx.Response:
    """Answer of the server to these bytes, until it closes the connection."""
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):  # it may have closed before all is sent
            for piece in pieces:
                connection.sendall(piece)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while received := connection.recv(65536):
                answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    return httpx.Response(int(head.split()[1]), content=body)


@pytest.mark.parametrize(
    "request_line", [b"GARBAGE", b"FOO /v1/models HTTP/1.1", b"GET /v1/models?a=\xff HTTP/1.1"]
)
def test_bytes_other_than_http_get_an_error_body_like_any_other_mistake(server, request_line):
    response = exchange(server, request_line + b"\r\nHost: 127.0.0.1\r\n\r\n")

    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_headers_without_end_are_refused(server):
    piece = b"X-More: " + b"a" * 8000 + b"\r\n"
    response = exchange(server, b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[piece] * 500)

    assert response.status_code == 431
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_headers_beyond_the_limit_that_arrive_together_are_refused(server):
    line = b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nX-More: "
    small, large = (exchange(server, line + b"a" * n + b"\r\n\r\n") for n in (260_000, 262_144))

    assert (small.status_code, large.status_code) == (200, 431)
    assert "larger than 262144 bytes" in large.json()["error"]["message"]


@pytest.mark.parametrize("piece", [b"X-More: a\r\n" * 800, b"a" * 8000])
def test_trailers_without_end_are_refused(server, piece):
    head = b"POST /v1/tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-More: a\r\nX-"
    response = exchange(server, head + body, *[piece] * 500)

    assert response.status_code == 431
    assert "trailers are larger than 262144 bytes" in response.json()["error"]["message"]


def test_request_with_an_upgrade_to_http_2_is_read_with_its_body(server):
    body = b'{"model": "builtin", "text": "a"}'
    head = b"POST /v1/tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    ended = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    whole = exchange(server, head + upgrade + length + body + ended)
    parted = exchange(server, head + upgrade + length, body, ended)

    for answer in (whole, parted):
        assert answer.status_code == 200
        assert b'"count":1,' in answer.content
        assert answer.content.endswith(b'{"status":"ok"}')


def test_web_socket_is_not_opened_during_an_answer(server):
    body = json.dumps({**CHAT, "stream": True, "max_tokens": 200, "ignore_eos": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    handshake = (
        b"GET /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    answer = exchange(server, head + body, handshake)

    assert answer.status_code == 200
    assert b"HTTP/1.1 101" not in answer.content
    assert answer.content.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_more_messages_than_the_context_has_tokens_are_refused_before_they_are_rendered(server):
    messages = CHAT["messages"] * 50_000
    refused = httpx.post(
        f"{server.base_url}/chat/completions", json={**CHAT, "messages": messages}, timeout=60
    )

    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "messages"
    assert f"at least {len(messages)} tokens" in refused.json()["error"]["message"]
