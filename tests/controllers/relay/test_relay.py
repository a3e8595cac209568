"""The relay's behaviour in time: what arrives when, who is cut off when, and how it ends."""

import asyncio
import gzip
import json
import zlib
from types import SimpleNamespace

import pytest
from starlette.requests import Request as HttpRequest

from llm_backend.backends.upstream.pool import UpstreamPool
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.controllers.relay.relay import relay, upstream_path
from llm_backend.controllers.relay.relayed_response import documented_error
from llm_backend.errors import InvalidRequest, ServiceUnavailable, Unsupported
from tests.patience import comes_true, settle
from tests.upstream import (
    Connection,
    FakeUpstream,
    Message,
    NothingUnfamiliar,
    post,
    relayed_to,
    relaying,
    upstream_of,
)

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = b'data: {"id":"c1","choices":[]}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, *, more: bytes = b"", status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n" % (status, len(body), more) + body


def error_of(body: bytes) -> dict[str, object]:
    return json.loads(body)["error"]


class Scripted:
    """A fake upstream whose connection stays in the test's hands."""

    def __init__(self, *, first: bytes = b"", reads_bodies: bool = True) -> None:
        self._first = first
        self._connected: asyncio.Queue[Connection] = asyncio.Queue()
        self.fake = FakeUpstream(answer=self._answer, reads_bodies=reads_bodies)

    async def connection(self) -> Connection:
        return await self._connected.get()

    async def _answer(self, _: Message, connection: Connection) -> None:
        if self._first:
            await connection.send(self._first)
        self._connected.put_nowait(connection)
        await asyncio.Event().wait()


async def test_each_piece_arrives_before_the_next_is_sent():
    upstream = Scripted(first=STREAM_HEAD)

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post())
        there = await upstream.connection()
        assert (await client.head()).status == 200
        for number in range(5):
            await there.send(chunk(b"data: %d\n\n" % number))
            assert await client.piece() == b"data: %d\n\n" % number
        await there.send(b"0\r\n\r\n")
        assert await client.piece() == b""


async def test_the_headers_arrive_before_the_first_piece():
    upstream = Scripted(first=whole(b"")[:-2].replace(b"length: 0", b"length: 9") + b"\r\n")

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post())
        head = await client.head()

        assert head.values(b"content-length") == [b"9"]


async def test_leaving_in_the_middle_of_a_stream_cuts_the_upstream():
    upstream = Scripted(first=STREAM_HEAD + chunk(EVENT))

    async with relayed_to(upstream.fake) as relay:
        async with relay.client() as client:
            await client.send(post())
            there = await upstream.connection()
            await client.head()
            await client.piece()

        assert await there.is_gone(within_s=0.2)
        assert await comes_true(lambda: relay.finished == 1, within_s=0.5)


async def test_leaving_before_the_first_byte_cuts_the_upstream():
    upstream = Scripted()

    async with relayed_to(upstream.fake) as relay:
        async with relay.client() as client:
            await client.send(post())
            there = await upstream.connection()

        assert await there.is_gone(within_s=0.2)
        assert relay.finished == 0


async def test_leaving_in_the_middle_of_an_upload_cuts_the_upstream():
    upstream = Scripted(reads_bodies=False)

    async with relayed_to(upstream.fake) as relay:
        async with relay.client() as client:
            await client.send(upload_head(1000) + b"half of it")
            there = await upstream.connection()

        assert await there.is_gone(within_s=0.2)


async def test_a_disconnect_cuts_an_upstream_that_reads_nothing():
    upstream = Scripted(first=STREAM_HEAD)

    async with relayed_to(upstream.fake) as relay:
        async with relay.client() as client:
            await client.send(post())
            there = await upstream.connection()
            flood = asyncio.create_task(_flood(there))
            await asyncio.sleep(0.2)  # the client does not read: every buffer on the way is full

        assert await comes_true(flood.done, within_s=0.5)


async def test_a_cut_stream_ends_with_an_error_event():
    upstream = Scripted(first=STREAM_HEAD + chunk(EVENT))

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post())
        (await upstream.connection()).cut()
        got = await client.message()

    assert got.is_whole
    assert got.body.startswith(EVENT + b'data: {"error"')
    error = error_of(got.body.removeprefix(EVENT + b"data: "))
    assert (error["type"], error["code"]) == ("server_error", "upstream_failed")
    assert got.body.endswith(b"}\n\n")


async def test_a_cut_stream_of_messages_ends_with_their_error_event():
    upstream = Scripted(first=STREAM_HEAD + chunk(b"event: ping\ndata: {}\n\n"))

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post(path="/v1/messages"))
        (await upstream.connection()).cut()
        got = await client.message()

    event, _, data = got.body.removeprefix(b"event: ping\ndata: {}\n\n").partition(b"\n")
    assert event == b"event: error"
    error = json.loads(data.removeprefix(b"data: "))
    assert (error["type"], error["error"]["type"]) == ("error", "api_error")


async def test_a_cut_stream_of_lines_ends_with_a_line():
    line = b'{"message":{"content":"a"},"done":false}\n'
    head = STREAM_HEAD.replace(b"text/event-stream", b"application/x-ndjson")
    upstream = Scripted(first=head + chunk(line))

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post(path="/api/chat"))
        (await upstream.connection()).cut()
        got = await client.message()

    last = got.body.removeprefix(line)
    assert isinstance(json.loads(last)["error"], str)


@pytest.mark.parametrize("half", [b'data: {"id":', b"data: 1\n", b"data: 1\r"])
async def test_an_error_event_stands_alone_after_half_an_event(half: bytes):
    upstream = Scripted(first=STREAM_HEAD + chunk(half))

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post())
        (await upstream.connection()).cut()
        got = await client.message()

    assert got.body.startswith(half + b'\n\ndata: {"error"')


async def test_garbage_in_the_chunking_ends_a_stream_with_an_error_event():
    upstream = Scripted(first=STREAM_HEAD + chunk(EVENT) + b"not a size\r\n")

    async with relayed_to(upstream.fake) as relay:
        got = await relay.ask(post())

    assert b"upstream_failed" in got.body


async def test_a_stream_that_falls_silent_ends_with_a_timeout_event():
    upstream = Scripted(first=STREAM_HEAD + chunk(EVENT))

    async with relayed_to(upstream.fake, idle_timeout_s=0.1) as relay:
        got = await relay.ask(post())

    assert b'"code":"upstream_timeout"' in got.body


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n"
        + b"{" * 9,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"{" * 9),
        STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + chunk(b"{" * 9),
    ],
    ids=["length", "chunked", "compressed stream"],
)
async def test_half_an_answer_is_seen_to_be_half(half: bytes):
    upstream = Scripted(first=half)

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(post())
        there = await upstream.connection()
        await client.head()
        there.cut()
        raw = await client.reader.read()

    assert b"{" * 9 in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_an_error_inside_a_stream_passes_untouched():
    body = EVENT + b'data: {"error": {"message": "no", "code": null}}\n\n'
    fake = FakeUpstream(answer=STREAM_HEAD + chunk(body) + b"0\r\n\r\n")

    async with relayed_to(fake) as relay:
        got = await relay.ask(post())

    assert got.body == body


async def test_gzip_passes_as_it_came_and_is_observed_in_plain():
    packed = gzip.compress(b'{"a": 1}')
    fake = FakeUpstream(answer=whole(packed, more=b"content-encoding: gzip\r\n"))

    async with relayed_to(fake, observes=True) as relay:
        got = await relay.ask(post(more=b"accept-encoding: gzip, br;q=0.9, zstd\r\n"))

    assert got.body == packed
    assert got.values(b"content-encoding") == [b"gzip"]
    assert relay.observed == b'{"a": 1}'
    assert fake.requests[0].values(b"accept-encoding") == [b"gzip"]


async def test_a_bare_deflate_stream_is_observed_in_plain():
    packing = zlib.compressobj(wbits=-15)
    packed = packing.compress(b"x" * 5_000_000) + packing.flush()
    fake = FakeUpstream(answer=whole(packed, more=b"content-encoding: deflate\r\n"))

    async with relayed_to(fake, observes=True) as relay:
        got = await relay.ask(post())

    assert got.body == packed
    assert relay.observed == b"x" * 5_000_000


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
async def test_unreadable_bodies_pass_unobserved(coding: bytes):
    fake = FakeUpstream(answer=whole(b"\x00\x01\x02", more=b"content-encoding: %b\r\n" % coding))

    async with relayed_to(fake, observes=True) as relay:
        got = await relay.ask(post())

    assert got.body == b"\x00\x01\x02"
    assert relay.observed == b""


async def test_accept_encoding_is_not_touched_where_nothing_is_observed():
    fake = FakeUpstream()

    async with relayed_to(fake) as relay:
        await relay.ask(post(more=b"accept-encoding: br, zstd\r\n"))

    assert fake.requests[0].values(b"accept-encoding") == [b"br, zstd"]


async def test_an_error_answer_is_not_observed():
    fake = FakeUpstream(answer=whole(b'{"error": {}}', status=429))

    async with relayed_to(fake, observes=True) as relay:
        got = await relay.ask(post())

    assert got.status == 429
    assert relay.observed == b""


async def test_an_upload_is_passed_on_while_it_comes():
    upstream = Scripted(reads_bodies=False)

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(upload_head(3 * 65536) + b"a" * 65536)
        there = await upstream.connection()
        assert await there.reader.readexactly(65536) == b"a" * 65536
        for letter in (b"b", b"c"):
            await client.send(letter * 65536)
            assert await there.reader.readexactly(65536) == letter * 65536
        await there.send(whole(b"{}"))
        assert (await client.message()).body == b"{}"

    assert upstream.fake.requests[0].values(b"content-length") == [b"196608"]


async def test_an_upload_to_a_stalled_upstream_is_not_held_whole():
    upstream = Scripted(reads_bodies=False)
    limit = 32 * 1024 * 1024

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(upload_head(2 * limit) + b"the beginning")
        there = await upstream.connection()
        there.reader._transport.pause_reading()  # type: ignore[attr-defined]  # a private one
        sending = asyncio.create_task(client.send(bytes(limit)))
        done, _ = await asyncio.wait({sending}, timeout=0.5)
        assert not done
        there.cut()
        sending.cancel()


async def test_an_answer_before_the_end_of_the_upload_is_passed_on():
    refusal = b'{"error":{"message":"too large"}}'
    upstream = Scripted(first=whole(refusal, status=413), reads_bodies=False)

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        await client.send(upload_head(1_000_000) + b"the beginning")
        got = await client.message()

    assert (got.status, got.body) == (413, refusal)


async def test_finish_comes_before_the_end_is_seen_and_outlives_the_client():
    ends = asyncio.Event()

    async def slow() -> None:
        await ends.wait()

    fake = FakeUpstream(answer=whole(b'{"a": 1}'))
    async with relayed_to(fake) as relay:
        relay.on_finish = slow
        async with relay.client() as client:
            await client.send(post())
            await client.head()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.reader.read(1), 0.1)
        await settle()
        ends.set()

        assert await comes_true(lambda: relay.finished == 1, within_s=0.5)


async def test_the_last_event_waits_for_finish_but_no_other():
    ends = asyncio.Event()
    upstream = Scripted(first=STREAM_HEAD + chunk(EVENT))

    async with relayed_to(upstream.fake) as relay, relay.client() as client:
        relay.on_finish = ends.wait
        await client.send(post())
        there = await upstream.connection()
        await client.head()
        assert await client.piece() == EVENT
        await there.send(chunk(b"data: [DONE]\n\n"))
        late = asyncio.create_task(client.piece())
        await settle()
        assert not late.done()
        ends.set()
        assert await late == b"data: [DONE]\n\n"


async def test_an_answer_that_could_not_be_finished_breaks_off():
    async def fails() -> None:
        raise ServiceUnavailable("The chat could not be stored.")

    fake = FakeUpstream(answer=STREAM_HEAD + chunk(EVENT) + b"0\r\n\r\n")
    async with relayed_to(fake) as relay:
        relay.on_finish = fails
        got = await relay.ask(post())

    assert error_of(got.body.removeprefix(EVENT + b"data: "))["code"] == "overloaded"


async def test_without_an_upstream_the_operation_is_named():
    async with relaying(None) as relay:
        got = await relay.ask(post())

    assert got.status == Unsupported.status
    message = str(error_of(got.body)["message"])
    assert "createChatCompletion" in message
    assert "OPENAI_API_KEY" in message
    assert "OPENAI_BASE_URL" in message


async def test_a_server_that_ends_cancels_what_it_relays():
    upstream = Scripted()

    class Request:
        operation = SimpleNamespace(operation_id="createChatCompletion", tag="Chat")
        body = None
        raw_body = b"{}"
        caller = None
        meter = None
        http = HttpRequest(
            {
                "type": "http", "method": "POST", "path": "/v1/x", "raw_path": b"/v1/x",
                "query_string": b"", "headers": [],
            },
            receive=asyncio.Event().wait,
        )  # fmt: skip

    class Services:
        unknown_fields = NothingUnfamiliar()
        upstreams: UpstreamPool

    async with upstream.fake, UpstreamPool([upstream_of(upstream.fake)]) as Services.upstreams:
        task = asyncio.create_task(relay(Services(), Request()))
        there = await upstream.connection()
        task.cancel()

        with pytest.raises(asyncio.CancelledError):
            await task
        assert await there.is_gone()


async def test_an_error_whose_body_is_being_read_is_closed_when_its_request_is_cancelled():
    is_read, closed = asyncio.Event(), []

    async def body():
        yield b'{"object": "error", '
        is_read.set()
        await asyncio.Event().wait()

    answer = UpstreamAnswer(
        status=500,
        headers=((b"content-type", b"application/json"),),
        body=body(),
        close=lambda: closed.append(True),
    )
    http = HttpRequest({"type": "http", "method": "POST", "path": "/v1/x", "headers": []})
    task = asyncio.create_task(documented_error(answer, http))
    await is_read.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed


@pytest.mark.parametrize(
    ("raw", "root", "path"),
    [
        (b"/v1/models", "", "/models"),
        (b"/models", "", "/models"),
        (b"/api/v1/models/a%2Fb", "/api", "/models/a%2Fb"),
        (b"/v1/models", "/v1", "/models"),
        (b"/v1x/models", "", "/v1x/models"),
        (b"/v1/files/\xc3\xa9 #", "", "/files/%C3%A9%20#"),
    ],
)
def test_the_upstream_path_is_the_clients_without_the_prefix(raw: bytes, root: str, path: str):
    assert upstream_path({"raw_path": raw, "path": "", "root_path": root}) == path


@pytest.mark.parametrize("raw", [b"/v1/models/..", b"/v1/models/%2E%2e/x", b"/v1/m/..%2fx"])
def test_a_path_never_climbs_out_of_the_base_url(raw: bytes):
    with pytest.raises(InvalidRequest):
        upstream_path({"raw_path": raw, "path": ""})


def upload_head(size: int) -> bytes:
    return (
        b"POST /v1/files HTTP/1.1\r\nhost: relay\r\n"
        b"content-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n" % size
    )


async def _flood(connection: Connection) -> None:
    try:
        while True:
            await connection.send(chunk(bytes(65536)))
    except ConnectionError:
        pass
