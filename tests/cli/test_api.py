"""HTTP client of commands: errors in a sentence."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llm_backend.cli.api import KEY_HINT, Api, ApiRequestError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"n": 1}\n\n'


def test_answer_that_breaks_off_is_not_a_server_that_cannot_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer_in_part, args=(server,))
        answering.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        events = Api(url, None).events("/chat/completions", {})
        first = next(events)
        with pytest.raises(ApiRequestError, match=f"The answer of {url} broke off: "):
            next(events)
        answering.join()

    assert first == {"n": 1}


def answer_in_part(server: socket.socket) -> None:
    """Answers one request with an event, and closes the connection in the next one."""
    connection, _ = server.accept()
    with connection:
        while not connection.recv(65536).endswith(b"{}"):
            pass
        connection.sendall(HEAD + b"%x\r\n%s\r\n" % (len(EVENT), EVENT))


@pytest.mark.parametrize(("hint", "ending"), [({}, KEY_HINT), ({"key_hint": ""}, "(401)")])
def test_a_refused_key_is_answered_with_the_option(hint: dict[str, str], ending: str):
    refusal = b'{"error":{"message":"This server needs an API key."}}'
    head = b"HTTP/1.1 401 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(refusal)
    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer_once, args=(server, head + refusal))
        answering.start()
        with pytest.raises(ApiRequestError) as raised:
            Api(f"http://127.0.0.1:{server.getsockname()[1]}/v1", None, **hint).get("/models")
        answering.join()

    assert str(raised.value).startswith("This server needs an API key. (401)")
    assert str(raised.value).endswith(ending)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (b'{"message":"no"}', "no"),
        (b'"no"', "no"),
        (b"{}", "The server sent an error without a message."),
        (b'{"message":null}', "The server sent an error without a message."),
        (b"[1]", "The server sent an error without a message."),
    ],
)
def test_error_event_of_any_shape_is_reported_in_a_sentence(error: bytes, message: str):
    with pytest.raises(ApiRequestError) as raised:
        events_of(EVENT, b'data: {"error":%b}\n\n' % error)

    assert str(raised.value) == message


def test_event_with_a_null_error_is_no_error_event():
    assert events_of(b'data: {"error":null,"n":2}\n\n') == [{"error": None, "n": 2}]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error":"no"}', "no (500)"),
        (b'{"error":null}', "The server answered 500."),
        (b'{"error":{"message":null}}', "The server answered 500."),
        (b"[]", "The server answered 500."),
        (b"<html>", "The server answered 500."),
    ],
)
def test_error_answer_of_any_shape_is_reported_in_a_sentence(body: bytes, reason: str):
    head = b"HTTP/1.1 500 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    with answering(head + body) as url, pytest.raises(ApiRequestError) as raised:
        Api(url, None).get("/models")

    assert str(raised.value) == reason


def events_of(*events: bytes) -> list[object]:
    """Returns the events that the client yields for a stream of these."""
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    with answering(HEAD + chunks + b"0\r\n\r\n") as url:
        return list(Api(url, None).events("/chat/completions", {}))


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answers one request; yields the base URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer_once, args=(server, answer))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        finally:
            thread.join()


def answer_once(server: socket.socket, answer: bytes) -> None:
    """Answers one request whose body is empty or `{}`."""
    connection, _ = server.accept()
    with connection:
        while not connection.recv(65536).endswith((b"\r\n\r\n", b"{}")):
            pass
        connection.sendall(answer)


@pytest.mark.parametrize(
    "url",
    ["ftp://h/v1", "http://h:8o00/v1", "http://h:80000/v1", "http://[::1", "http://h/v\u00fc"],
)
def test_wrong_base_url_is_refused_in_a_sentence(url: str):
    with pytest.raises(ApiRequestError, match="is not a base URL like"):
        Api(url, None)


def test_key_that_no_header_can_hold_is_refused_in_a_sentence():
    assert Api("http://h/v1", "sk-one\n").base_url == "http://h/v1"
    for key in ("sk-\u2026", "sk-one\nsk-two"):
        with pytest.raises(ApiRequestError, match="The API key holds a character"):
            Api("http://h/v1", key)
