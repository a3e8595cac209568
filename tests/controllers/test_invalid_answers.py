"""A good status with something that no answer can be is an upstream's failure."""

import asyncio
import gzip
import json

import pytest

from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, post

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAMED = CHAT[:-1] + b',"stream":true}'
ANSWER = b'{"choices":[]}'
PAGE = b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>"
EVENTS = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'
VALIDATORS = Validators(load_document())


def answer(
    body: bytes, kind: str = "application/json", status: str = "200 OK", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


def chunked(*pieces: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n"


NO_ANSWERS = {
    "a page": answer(PAGE, "text/html"),
    "a page that says it is JSON": answer(PAGE),
    "nothing": answer(b""),
    "nothing, in chunks": chunked(),
    "nothing, by its status": b"HTTP/1.1 204 No Content\r\n\r\n",
    "blanks": chunked(b" \n", b"\r\n "),
    "half a JSON": answer(ANSWER[:-4]),
    "half a JSON, in chunks": chunked(b'{"choi', b'ces":['),
    "two JSON": answer(ANSWER + ANSWER),
    "no JSON": answer(b"{oops}"),
    "a word": answer(b"ok", "text/plain"),
    "null": answer(b"null"),
    "a text": answer(b'"choices"'),
    "no UTF-8": answer(b'{"a":"\xff"}'),
    "a page, compressed": answer(gzip.compress(PAGE), more="content-encoding: gzip\r\n"),
    "what is not compressed": answer(PAGE, more="content-encoding: gzip\r\n"),
    "a body that breaks off": answer(ANSWER)[:-3],
}


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_invalid_answers_are_a_documented_error_and_a_route_falls_back(
    tmp_path, capsys, body: bytes
):
    check = VALIDATORS.response("createChatCompletion", 502, "application/json")
    assert check is not None

    given = b""

    async def give(_: Message, connection: Connection) -> None:
        await connection.send(given)
        connection.writer.close()

    async with (
        FakeUpstream(answer=give) as bad,
        FakeUpstream(answer=answer(ANSWER)) as good,
        gateway(
            tmp_path,
            backends=[backend(bad, "the-hidden-one", "m"), backend(good, "b", "n")],
            routes={"r": "m, n"},
        ) as served,
    ):
        for name in NO_ANSWERS:
            given = NO_ANSWERS[name]
            got = await served.ask(post(body))
            routed = await served.ask(post(body.replace(b'"m"', b'"r"')))

            assert check.is_valid(json.loads(got.body)), name
            assert (got.status, json.loads(got.body)["error"]["code"]) == (502, "upstream_failed")
            assert (routed.status, routed.body) == (200, ANSWER), name

    assert "upstream=the-hidden-one" in capsys.readouterr().err


async def test_unrequested_event_streams_are_invalid_answers(tmp_path):
    events = chunked(EVENTS, kind="text/event-stream")
    async with (
        FakeUpstream(answer=events) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    assert got.status == 502


async def test_another_backend_of_the_model_answers_and_the_bad_one_is_given_up(tmp_path, capsys):
    async with (
        FakeUpstream(answer=answer(PAGE, "text/html")) as bad,
        FakeUpstream(answer=answer(ANSWER)) as good,
        gateway(
            tmp_path, backends=[backend(bad, "bad", "m", weight=9), backend(good, "b", "m")]
        ) as served,
    ):
        answers = [await served.ask(post(CHAT)) for _ in range(8)]

    assert {got.body for got in answers} == {ANSWER}
    assert len(bad.requests) == 3
    assert "upstream_ejected upstream=bad" in capsys.readouterr().err


GOOD = {
    "by its bytes, whatever it calls itself": (CHAT, answer(ANSWER, "text/html")),
    "by a sloppy writer": (CHAT, answer(b'\xef\xbb\xbf\n {"choices":[{"logprob":-Infinity}]}')),
    "compressed": (
        CHAT,
        answer(gzip.compress(ANSWER), more="content-encoding: gzip\r\n"),
    ),
    "compressed in a way that is not known here": (
        CHAT,
        answer(b"\x1b\x07\x00\xf8", more="content-encoding: zstd\r\n"),
    ),
    "whole where events were asked for": (STREAMED, answer(ANSWER)),
    "events": (STREAMED, chunked(EVENTS, kind="text/event-stream")),
    "events that call themselves something else": (STREAMED, chunked(EVENTS, kind="text/plain")),
    "a comment first": (STREAMED, chunked(b": ping\n\n", EVENTS, kind="text/plain")),
    "an error": (CHAT, answer(b'{"error":{"message":"no"}}', status="500 X")),
}


async def test_an_answer_passes_byte_for_byte(tmp_path):
    async def give(_: Message, connection: Connection) -> None:
        await connection.send(given)

    async with (
        FakeUpstream(answer=give) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        for name, (body, given) in GOOD.items():
            got = await served.ask(post(body))

            expected = given.partition(b"\r\n\r\n")[2]
            if b"chunked" in given:
                expected = (b": ping\n\n" if b": ping" in given else b"") + EVENTS
            assert got.status == int(given.split()[1]), name
            assert (got.body, got.is_whole) == (expected, True), name


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_body_that_the_document_does_not_describe_is_relayed_within_the_limits(
    tmp_path, kind
):
    def asking(body: bytes) -> bytes:
        asked = post(body, path="/v1/fine_tuning/jobs/ftjob-1/cancel")
        return asked.replace(b"application/json", kind.encode())

    settings = {"body_limit_bytes": 1024, "upload_limit_bytes": 1024}
    async with (
        FakeUpstream(answer=answer(b"{}")) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")], **settings) as served,
    ):
        got = await served.ask(asking(b'{"why": 1}'))
        too_large = await served.ask(asking(b'"' + b"x" * 1024 + b'"'))

    assert (got.status, [one.body for one in fake.requests]) == (200, [b'{"why": 1}'])
    assert too_large.status == 413


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'[{"error": {"message": "not valid", "code": 400}}]', "not valid"),
        (b"no such page\n", "no such page"),
        (b'{"oh": "no"}', "The upstream answered with the status 404."),
        (b"", "The upstream answered with the status 404."),
        (b"\xff", "The upstream answered with the status 404."),
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
async def test_error_of_another_shape_is_an_error_of_the_api(tmp_path, kind, given, message):
    retried = answer(given, kind, status="404 X", more="retry-after: 7\r\n")
    async with (
        FakeUpstream(answer=retried) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    error = json.loads(got.body)["error"]
    assert (got.status, got.is_whole, error["message"]) == (404, True, message)
    assert error.keys() == {"message", "type", "param", "code"}
    assert got.values(b"retry-after") == [b"7"]


@pytest.mark.parametrize(
    "given",
    [
        b'{"error": {"message": "no", "type": "x", "code": 404, "more": 1}}',
        b'{"detail": "' + b"x" * 70_000 + b'"}',  # too long to be held
    ],
)
async def test_other_errors_pass_byte_for_byte(tmp_path, given):
    async with (
        FakeUpstream(answer=answer(given, status="404 X")) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    assert (got.status, got.body, got.is_whole) == (404, given, True)


async def test_error_that_breaks_off_is_a_failure_of_the_upstream(tmp_path):
    async def break_off(_: Message, connection: Connection) -> None:
        await connection.send(answer(b'{"detail": "Not Found"}', status="404 X")[:-3])

    async with (
        FakeUpstream(answer=break_off) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    assert (got.status, got.is_whole) == (502, True)


async def test_an_error_page_is_an_error_of_the_api_with_its_status(tmp_path):
    more = "retry-after: 7\r\nx-should-retry: false\r\ncontent-language: en\r\n"
    for status in (404, 418, 500):
        page = answer(gzip.compress(PAGE), "text/html; charset=utf-8", f"{status} X",
                      f"content-encoding: gzip\r\n{more}")  # fmt: skip
        async with (
            FakeUpstream(answer=page) as fake,
            gateway(tmp_path, backends=[backend(fake, "a")]) as served,
        ):
            for _ in range(2):
                got = await served.ask(post(CHAT))

        assert (got.status, got.is_whole) == (status, True)
        assert json.loads(got.body)["error"].keys() == {"message", "type", "param", "code"}
        assert got.values(b"content-type") == [b"application/json"]
        assert got.values(b"content-encoding") == got.values(b"content-language") == []
        assert got.values(b"retry-after") == [b"7"]


async def test_an_empty_stream_of_events_ends_with_an_error(tmp_path, capsys):
    async with (
        FakeUpstream(answer=chunked(kind="text/event-stream")) as fake,
        gateway(tmp_path, backends=[backend(fake, "the-hidden-one")]) as served,
    ):
        got = await served.ask(post(STREAMED))

    assert got.is_whole
    assert json.loads(got.body.removeprefix(b"data: "))["error"]["code"] == "upstream_failed"
    assert "upstream=the-hidden-one" in capsys.readouterr().err


async def test_checked_answers_are_buffered_up_to_the_setting(tmp_path):
    may_end = asyncio.Event()

    async def long(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await connection.send(b'800\r\n{"data":"' + b"x" * (0x800 - 9) + b"\r\n")
        await may_end.wait()
        await connection.send(b'2\r\n"}\r\n0\r\n\r\n')

    async with (
        FakeUpstream(answer=long) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")], upstream_check_bytes=1024) as served,
        served.client() as client,
    ):
        await client.send(post(CHAT))
        head = await client.head()
        first = await client.piece()
        may_end.set()
        while piece := await client.piece():
            first += piece

    assert head.status == 200
    assert json.loads(first)["data"] == "x" * (0x800 - 9)


async def test_blanks_without_end_are_not_read_without_end(tmp_path):
    async def blanks(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while not connection.writer.is_closing():
            await connection.send(b" " * 4096)

    async with (
        FakeUpstream(answer=blanks) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(post(CHAT))

    assert got.status == 502


FORM = (
    b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--b--\r\n'
)


def form(path: str) -> bytes:
    sent = post(FORM, path=path)
    return sent.replace(b"application/json", b"multipart/form-data; boundary=b")


OTHERS = {
    "embeddings": (post(b'{"model":"m","input":"a"}', path="/v1/embeddings"), 502),
    "responses": (post(b'{"model":"m","input":"a"}', path="/v1/responses"), 502),
    "a list": (b"GET /v1/fine_tuning/jobs HTTP/1.1\r\nhost: relay\r\n\r\n", 502),
    "a form": (form("/v1/audio/transcriptions"), 502),
    "a text": (form("/v1/audio/translations"), 502),
    "speech": (
        post(b'{"model":"m","input":"a","voice":"alloy"}', path="/v1/audio/speech"),
        502,
    ),
    "what may be a page": (
        b"GET /v1/containers/c/files/f/content HTTP/1.1\r\nhost: relay\r\n\r\n",
        200,
    ),
}


@pytest.mark.parametrize(("asked", "status"), OTHERS.values(), ids=OTHERS.keys())
async def test_a_page_is_no_answer_of_any_operation_but_of_those_that_may_give_one(
    tmp_path, asked: bytes, status: int
):
    async with (
        FakeUpstream(answer=answer(PAGE, "text/html; charset=utf-8")) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        got = await served.ask(asked)

    assert got.status == status
    assert fake.requests


async def test_a_deletion_may_be_answered_by_nothing_and_a_transcription_by_a_text(tmp_path):
    async def text_or_nothing(request: Message, connection: Connection) -> None:
        is_form = request.first_line.startswith(b"POST")
        text = answer(b"1\n00:00:00", "text/plain")
        await connection.send(text if is_form else b"HTTP/1.1 204 No Content\r\n\r\n")

    async with (
        FakeUpstream(answer=text_or_nothing) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        deleted = await served.ask(b"DELETE /v1/assistants/a HTTP/1.1\r\nhost: relay\r\n\r\n")
        said = await served.ask(form("/v1/audio/transcriptions"))

    assert deleted.status == 204
    assert (said.status, said.body) == (200, b"1\n00:00:00")


async def test_a_bridged_model_falls_back(tmp_path):
    events = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    said = chunked(events, b"data: [DONE]\n\n", kind="text/event-stream")
    async with (
        FakeUpstream(answer=answer(PAGE, "text/html")) as bad,
        FakeUpstream(answer=said) as good,
        gateway(
            tmp_path,
            backends=[
                backend(bad, "bad", "m", wire="chat", weight=9),
                backend(good, "b", "m", wire="chat"),
            ],
        ) as served,
    ):
        got = await served.ask(post(b'{"model":"m","input":"a"}', path="/v1/responses"))

    assert got.status == 200
    assert b'"Hi"' in got.body
    assert bad.requests
