"""Connections that send nothing, half of something, or slowly; and heads that are wrong."""

import base64
import contextlib
import json
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.live.test_tls import signed
from tests.serving import Served, serve

PATIENCE_S = 120.0  # what is waited for takes some seconds, on a machine that does nothing else
SHORT = {
    "LLM_BACKEND_HEADER_TIMEOUT_S": "2",
    "LLM_BACKEND_BODY_GRACE_S": "4",
    "LLM_BACKEND_BODY_MIN_BYTES_PER_S": "100",
    "LLM_BACKEND_KEEP_ALIVE_TIMEOUT_S": "2",
    "LLM_BACKEND_WRITE_TIMEOUT_S": "2",
}
HEAD = b"POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HALVES = {
    b"": None,  # what is sent, and the status of the answer
    b"\r\n": None,
    b"G": 408,
    b"GET /healthz HTTP/1.1\r\n": 408,
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ": 408,
    HEAD + b"Content-Length: 100\r\n\r\n": 408,
    HEAD + b'Content-Length: 100\r\n\r\n{"model"': 408,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{": 408,
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n": 200,  # and then silence
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he": 200,
}


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("impatient"), environment=SHORT) as served:
        yield served


def place(served: Served) -> tuple[str, int]:
    host, port = served.address.partition("://")[2].split(":")
    return host, int(port)


def opened(served: Served) -> socket.socket:
    return socket.create_connection(place(served), timeout=PATIENCE_S)


def rest_of(connection: socket.socket) -> bytes:
    """Bytes that the server sends until it closes the connection; fails if it does not."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            answer += piece
    return answer


def exchanged(served: Served, sent: bytes) -> tuple[int, httpx.Headers, dict]:
    with opened(served) as connection:
        connection.sendall(sent)
        head, _, body = rest_of(connection).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
    return int(status.split()[1]), headers, json.loads(body)


def check_refusal(status: int, headers: httpx.Headers, body: dict, code: str) -> None:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert headers["x-request-id"].startswith("req_")
    assert headers["connection"] == "close"


def test_two_hundred_silent_and_half_sent_connections_are_closed(impatient):
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(200 // len(HALVES)):
            for sent, status in HALVES.items():
                connection = stack.enter_context(opened(impatient))
                connection.sendall(sent)
                connections.append((connection, sent, status))
        assert len(connections) == 200
        during = httpx.get(f"{impatient.address}/healthz", timeout=PATIENCE_S)
        for connection, sent, status in connections:
            answer = rest_of(connection)
            assert (answer[:13] == b"HTTP/1.1 %d " % status) if status else answer == b"", sent

    assert during.status_code == 200
    assert "Traceback" not in impatient.log.read_text()


def test_half_sent_request_is_answered_in_openais_shape(impatient):
    status, headers, body = exchanged(impatient, HEAD + b"Content-Length: 100\r\n\r\n{")

    assert status == 408
    check_refusal(status, headers, body, "request_timeout")


def test_slow_body_above_the_least_rate_is_served(impatient):
    body = json.dumps({"model": "builtin", "text": "word " * 1600}).encode()
    with opened(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body))
        began_s, sent = time.monotonic(), 0
        while sent < len(body):  # for longer than the grace
            connection.sendall(body[sent : sent + 150])
            sent += 150
            time.sleep(max(0.0, began_s + sent / 1500 - time.monotonic()))
        answer = rest_of(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")


def wait_for(served: Served, event: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while event not in served.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_answer_that_goes_on_is_spared_where_the_next_request_is_slow(impatient):
    with opened(impatient) as connection:
        connection.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HT")
        wait_for(impatient, "request_too_slow is_answering=True")
        chat = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]}
        httpx.post(f"{impatient.base_url}/chat/completions", json=chat, timeout=PATIENCE_S)
        told = b""
        while told.count(b"data:") < 3:  # idle, processing, idle
            told += connection.recv(65536)

    assert told.count(b"HTTP/1.1 ") == 1


def test_client_that_takes_nothing_of_its_answer_is_cut(impatient):
    with opened(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(request * 20)
        wait_for(impatient, "answer_not_taken")


def test_tls_handshake_that_is_not_completed_is_given_up(tmp_path):
    certificate, key = signed("localhost").write(tmp_path, "server")
    flags = ["--tls-certificate", str(certificate), "--tls-key", str(key), "--model", "none"]
    with (
        serve(tmp_path / "data", *flags, environment=SHORT, ready=False) as served,
        contextlib.ExitStack() as stack,
    ):
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        connections = [stack.enter_context(opened(served)) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.sendall(hello if number % 2 else b"")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        after = stack.enter_context(context.wrap_socket(opened(served)))  # and then nothing
        answers = [rest_of(connection) for connection in [*connections, after]]
        log = served.log.read_text()

    assert answers == [b""] * 21
    assert "Traceback" not in log


@pytest.mark.parametrize(
    "lines",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a@localhost\r\n",
        b"GET /healthz HTTP/1.1\r\n",
        b"GET /healthz HTTP/1.1\r\nHost:\r\n",
        b"GET http://evil.test/healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"GET http://localhost@evil.test/healthz HTTP/1.1\r\nHost: localhost\r\n",
        b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n",
        b"GET /v1/realtime HTTP/1.1\r\nHost: a@b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    ],
)
def test_head_without_one_host_is_refused(impatient, lines):
    status, headers, body = exchanged(impatient, lines + b"\r\n")

    assert status == 400
    check_refusal(status, headers, body, "invalid_http")


def test_absolute_target_of_this_server_is_served(impatient):
    with opened(impatient) as connection:
        url, host = impatient.address.encode(), impatient.address.partition("://")[2].encode()
        connection.sendall(
            b"GET %s/ping HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (url, host)
        )
        answer = rest_of(connection)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"pong")


def test_fault_of_a_pipelined_request_spares_the_answer_before_it(impatient):
    with opened(impatient) as connection:
        right = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(right + b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n" + right)
        answer = rest_of(connection)

    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["object"] == "list"


def upgrade(served: Served, path: bytes, *lines: bytes) -> tuple[int, httpx.Headers, dict]:
    head = [
        b"GET %s HTTP/1.1" % path, b"Host: localhost", b"Connection: Upgrade",
        b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", *lines,
    ]  # fmt: skip
    return exchanged(served, b"\r\n".join(head) + b"\r\n\r\n")


KEY = b"Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16))


@pytest.mark.parametrize(
    ("path", "lines", "status"),
    [
        (b"/v1/nowhere", [KEY], 404),
        (b"/v1/realtime", [KEY], 400),
        (b"/v1/live/sessions", [KEY], 501),
        (b"/v1/live/sessions/s/attach", [KEY], 501),
        (b"/v1/responses", [KEY, b"Origin: http://evil.test"], 403),
        (b"/v1/responses", [], 400),
        (b"/v1/responses", [b"Sec-WebSocket-Key: short"], 400),
        (b"/v1/responses", [KEY, b"X-Long: " + b"a" * 10_000], 431),
        (b"/v1/responses", [KEY, *(b"X-%d: a" % number for number in range(200))], 431),
        (b"/v1/responses?" + b"a" * 10_000, [KEY], 414),
    ],
)
def test_refused_web_socket_has_a_request_id_and_openais_shape(impatient, path, lines, status):
    before = impatient.log.read_text()
    answered, headers, body = upgrade(impatient, path, *lines)
    log = impatient.log.read_text().removeprefix(before)

    assert answered == status
    check_refusal(answered, headers, body, body["error"]["code"])
    assert "Traceback" not in log
    assert "handshake" not in log


def frame(opcode: int, data: bytes, *, is_last: bool = True) -> bytes:
    mask = b"\1\2\3\4"
    masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
    return struct.pack("!BB", opcode | (0x80 if is_last else 0), 0x80 | len(data)) + mask + masked


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(1, b"\xff\xfe")], 1007),
        ([frame(1, b'{"a": "\xc3', is_last=False), frame(0, b'("}')], 1007),
        ([frame(1, b"a", is_last=False), frame(1, b"b")], 1002),
        ([frame(3, b"reserved")], 1002),
        ([frame(8, struct.pack("!H", 1000) + b"\xff")], 1007),
        ([frame(9, b"")] * 50_000, 1008),
        ([frame(10, b"")] * 50_000, 1008),
        ([frame(1, b"", is_last=False), *[frame(0, b"", is_last=False)] * 50_000], 1008),
    ],
)
def test_frame_that_is_wrong_closes_without_a_traceback(impatient, frames, code):
    url = impatient.base_url.replace("http", "ws") + "/responses"
    with connect(url) as client:
        with contextlib.suppress(OSError):  # it closes before it has read all
            client.socket.sendall(b"".join(frames))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=PATIENCE_S)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code
    assert "Traceback" not in impatient.log.read_text()


def test_web_socket_reads_a_message_of_many_frames_and_goes_on(impatient):
    text = json.dumps({"type": "response.create", "model": "nowhere", "input": "a" * 200_000})
    pieces = [text[start : start + 100].encode() for start in range(0, len(text), 100)]
    first, *middle, last = pieces
    frames = [frame(1, first, is_last=False), *(frame(0, one, is_last=False) for one in middle)]
    with connect(impatient.base_url.replace("http", "ws") + "/responses") as client:
        answers = []
        for _ in "12":
            client.socket.sendall(b"".join([*frames, frame(9, b"ping"), frame(0, last)]))
            answers.append(json.loads(client.recv(timeout=PATIENCE_S)))

    assert [answer["error"]["code"] for answer in answers] == ["model_not_found"] * 2
