"""HTTP client of commands: errors in a sentence."""

import socket
import threading

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


def answer_once(server: socket.socket, answer: bytes) -> None:
    """Answers one request without a body."""
    connection, _ = server.accept()
    with connection:
        while not connection.recv(65536).endswith(b"\r\n\r\n"):
            pass
        connection.sendall(answer)
