"""Whatever an upstream does, a client gets a documented error, and who it was stays in the log."""

import asyncio
import json

import pytest

from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from tests.gateway import backend, closed_port, gateway
from tests.upstream import Connection, FakeUpstream, Message, Script, post

NAME = "the-hidden-one"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAMED = CHAT[:-1] + b',"stream":true}'
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n"
EVENT = b'data: {"choices":[]}\n\n'
VALIDATORS = Validators(load_document())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def says(*pieces: bytes, then_waits: bool = False) -> Script:
    async def answer(_: Message, connection: Connection) -> None:
        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(0.02)  # one at a time on the way
        if then_waits:
            await asyncio.Event().wait()

    return answer


def soon(code: str) -> float:
    """A deadline in seconds: one that is to be met is far off, on any machine."""
    return 0.5 if code == "upstream_timeout" else 30


async def endless_header(_: Message, connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nx: ")
    while not connection.writer.is_closing():
        await connection.send(b"x" * 8192)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (says(), 502, "upstream_failed"),
        (says(b"\x00\xff ouch"), 502, "upstream_failed"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-le"), 502, "upstream_failed"),
        (says(b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n"), 502, "upstream_failed"),
        (endless_header, 502, "upstream_failed"),
        (says(then_waits=True), 504, "upstream_timeout"),
        (says(b"HTTP/1.1 200 OK\r\n", then_waits=True), 504, "upstream_timeout"),
    ],
)
async def test_no_answer_is_a_documented_error(
    tmp_path, capsys, answer: Script, status: int, code: str
):
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(
            tmp_path, backends=[backend(fake, NAME, first_byte_timeout_s=soon(code))]
        ) as served,
    ):
        got = await served.ask(post(STREAMED))

    check = VALIDATORS.response("createChatCompletion", status, "application/json")
    assert (got.status, json.loads(got.body)["error"]["code"]) == (status, code)
    assert check is not None
    assert check.is_valid(json.loads(got.body))
    assert NAME.encode() not in got.body
    assert b"127.0.0.1" not in got.body
    assert NAME in capsys.readouterr().err


async def test_an_upstream_that_is_down_is_502(tmp_path, capsys):
    with closed_port() as port:
        down = {"name": NAME, "base_url": f"http://127.0.0.1:{port}", "api_key": "k"}
        async with gateway(tmp_path, backends=[down]) as served:
            got = await served.ask(post(CHAT))

    assert got.status == 502
    assert NAME.encode() not in got.body
    assert NAME in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_our_own_key_is_hidden_from_clients_and_logged(
    tmp_path, capsys, status: int
):
    body = b'{"error":{"message":"Incorrect API key provided: sk-up*****cret"}}'
    head = b"HTTP/1.1 %d X\r\nset-cookie: a=1\r\ncontent-length: %d\r\n\r\n" % (status, len(body))
    async with (
        FakeUpstream(answer=head + body) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME)]) as served,
    ):
        got = await served.ask(post(CHAT))

    assert (got.status, json.loads(got.body)["error"]["code"]) == (502, "upstream_failed")
    assert b"sk-up" not in got.body
    assert got.values(b"set-cookie") == []
    assert f"status {status}" in (told := capsys.readouterr().err)
    assert NAME in told


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ((b"", False), "upstream_failed"),
        ((chunk(b'data: {"choi'), False), "upstream_failed"),
        ((b"zz\r\n", False), "upstream_failed"),
        ((b"", True), "upstream_timeout"),
    ],
)
async def test_a_stream_that_breaks_ends_with_an_error_event(
    tmp_path, capsys, last: tuple[bytes, bool], code: str
):
    answer = says(STREAM_HEAD, chunk(EVENT), last[0], then_waits=last[1])
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME, idle_timeout_s=soon(code))]) as served,
    ):
        got = await served.ask(post(STREAMED))

    event = got.body.rpartition(b"data: ")[2]
    assert got.is_whole
    assert got.body.startswith(EVENT)
    assert json.loads(event)["error"]["code"] == code
    assert NAME.encode() not in got.body
    assert NAME in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then_waits", "code", "status"),
    [(False, "upstream_failed", 502), (True, "upstream_timeout", 504)],
)
@pytest.mark.parametrize("is_long", [False, True])
async def test_half_a_json_is_an_error_or_is_seen_to_be_half(
    tmp_path, capsys, then_waits: bool, code: str, status: int, is_long: bool
):
    half = b'{"id":"' + b"c" * (2000 if is_long else 2) + b'","choi'
    head = JSON_HEAD.replace(b"40", b"%d" % (len(half) + 5))
    entry = {"name": NAME, "idle_timeout_s": soon(code)}
    async with (
        FakeUpstream(answer=says(head, half, then_waits=then_waits)) as fake,
        gateway(tmp_path, backends=[backend(fake, **entry)], upstream_check_bytes=1024) as served,
    ):
        got = await served.ask(post(CHAT))

    assert (got.status, got.is_whole) == ((200, False) if is_long else (status, True))
    told = capsys.readouterr().err
    assert NAME in told
    assert code in told


async def test_a_total_deadline_ends_an_answer_that_never_does(tmp_path):
    async def drips(_: Message, connection: Connection) -> None:
        await connection.send(STREAM_HEAD)
        while not connection.writer.is_closing():
            await connection.send(chunk(EVENT))
            await asyncio.sleep(0.02)

    async with (
        FakeUpstream(answer=drips) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME, total_timeout_s=0.2)]) as served,
    ):
        got = await served.ask(post(STREAMED))

    assert b'"upstream_timeout"' in got.body


@pytest.mark.parametrize(
    "inside",
    [
        b'data: {"error":{"message":"no","type":"server_error","param":null,"code":null}}\n\n',
        b'event: error\ndata: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n',
    ],
)
async def test_an_error_inside_a_stream_passes_as_it_is(tmp_path, capsys, inside: bytes):
    answer = STREAM_HEAD + chunk(EVENT) + chunk(inside) + b"0\r\n\r\n"
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME)], store_chats="always") as served,
    ):
        got = await served.ask(post(STREAMED))

    assert got.body == EVENT + inside
    assert NAME in capsys.readouterr().err


@pytest.mark.parametrize("index", [b"[]", b"{}", b"true", b"1.0"])
async def test_chunk_with_an_invalid_index_passes_as_it_is(tmp_path, index: bytes):
    first = b'data: {"choices":[{"index":1,"delta":{"role":"assistant"}}]}\n\n'
    second = b'data: {"choices":[{"index":%b,"delta":{"content":"x"}}]}\n\n' % index
    last = b"data: [DONE]\n\n"
    answer = STREAM_HEAD + b"".join(map(chunk, (first, second, last))) + b"0\r\n\r\n"
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME)], store_chats="always") as served,
    ):
        got = await served.ask(post(STREAMED))

    assert (got.body, got.is_whole) == (first + second + last, True)


async def test_text_about_errors_is_no_error(tmp_path, capsys):
    said = rb'data: {"error":null,"choices":[{"delta":{"content":"\"error\": {"}}]}' + b"\n\n"
    answer = STREAM_HEAD + chunk(EVENT) + chunk(said) + b"0\r\n\r\n"
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME)]) as served,
    ):
        await served.ask(post(STREAMED))

    assert NAME not in capsys.readouterr().err


async def test_a_200_with_an_error_inside_passes_as_it_is(tmp_path, capsys):
    body = b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}'
    answer = JSON_HEAD.replace(b"40", b"%d" % len(body)) + body
    async with (
        FakeUpstream(answer=answer) as fake,
        gateway(tmp_path, backends=[backend(fake, NAME)], store_chats="always") as served,
    ):
        got = await served.ask(post(CHAT))
        stored = await served.ask(b"GET /v1/chat/completions HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert (got.status, got.body) == (200, body)
    assert json.loads(stored.body)["data"] == []
    assert NAME in capsys.readouterr().err
