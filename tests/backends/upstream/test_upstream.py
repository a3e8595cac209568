"""HTTP client of an upstream: requests, failures and the list of models."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

import pytest

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.headers import answer_headers, as_text, request_headers
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.errors import ApiError, InvalidRequest, UpstreamFailed, UpstreamTimeout
from tests.logged import logged
from tests.patience import comes_true, settle
from tests.upstream import Connection, FakeUpstream, Message, upstream_of

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


async def ask(upstream: Upstream, **changes: object) -> tuple[int, bytes]:
    request = {"method": "POST", "path": "/x", "query": b"", "headers": [], "body": b"{}"}
    relayed = await upstream.exchange(**{**request, **changes})
    try:
        return relayed.status, b"".join([piece async for piece in relayed.body])
    finally:
        await relayed.aclose()


async def failure_of(fake: FakeUpstream, **settings: float) -> ApiError:
    async with fake, upstream_of(fake, **settings) as upstream:
        with pytest.raises(ApiError) as failed:
            await ask(upstream)
    return failed.value


async def silence(_: Message, __: Connection) -> None:
    await asyncio.Event().wait()


def breaking_off(status: bytes) -> Callable[[Message, Connection], Awaitable[None]]:
    """An answer whose connection breaks after the first of nine bytes."""

    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 %b\r\ncontent-length: 9\r\n\r\n{" % status)
        await settle()
        connection.cut()

    return answer


def models(*names: str) -> bytes:
    data = ",".join(f'{{"id":"{name}","object":"model"}}' for name in names)
    body = f'{{"object":"list","data":[{data}]}}'.encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def test_no_header_is_invented():
    async with FakeUpstream() as fake, upstream_of(fake) as upstream:
        await ask(upstream)

    assert fake.requests[0].headers == [
        (b"Host", f"127.0.0.1:{fake.port}".encode()),
        (b"authorization", b"Bearer server-key"),
        (b"content-length", b"2"),
    ]


async def test_observer_is_called_at_ejection_and_return():
    fake = FakeUpstream(answer=b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
    told: list[float] = []
    async with (
        fake,
        Upstream(
            UpstreamConfig(base_url=fake.base_url), UpstreamObserver(record_up=told.append)
        ) as upstream,
    ):
        for _ in range(4):
            await ask(upstream)
        fake.answer = OK
        for _ in range(2):
            await ask(upstream)

    assert told == [1, 0, 1]


async def test_ejected_upstream_without_requests_is_probed_and_returns(monkeypatch):
    monkeypatch.setattr("llm_backend.backends.upstream.idle_probe.IDLE_S", 0)
    monkeypatch.setattr("llm_backend.backends.upstream.upstream_health.EJECTION_S", 0.01)
    fake = FakeUpstream(answer=b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
    up: list[float] = []
    observer = UpstreamObserver(record_up=up.append)
    async with fake, Upstream(UpstreamConfig(base_url=fake.base_url), observer) as upstream:
        for _ in range(3):
            await ask(upstream)
        assert await comes_true(lambda: len(fake.requests) > 4, within_s=5)  # probes are repeated
        assert up == [1, 0]
        fake.answer = models("a")
        assert await comes_true(lambda: up == [1, 0, 1], within_s=5)

    assert fake.requests[-1].first_line == b"GET /v1/models HTTP/1.1"


async def test_without_a_key_none_is_sent():
    async with (
        FakeUpstream() as fake,
        Upstream(UpstreamConfig(base_url=fake.base_url, api_key=None)) as upstream,
    ):
        await ask(upstream, headers=[(b"authorization", b"Bearer client-key")])

    assert fake.requests[0].values(b"authorization") == []


async def test_a_get_has_no_body():
    async with FakeUpstream() as fake, upstream_of(fake) as upstream:
        await ask(upstream, method="GET", body=b"", headers=[(b"content-length", b"0")])

    assert fake.requests[0].values(b"content-length") == []


async def test_connection_is_reused():
    ports = set()

    async def answer(_: Message, connection: Connection) -> None:
        ports.add(connection.writer.get_extra_info("peername")[1])
        await connection.send(OK)
        await connection.reader.readuntil(b"\r\n\r\n{}")
        await connection.send(OK)

    async with FakeUpstream(answer=answer) as fake, upstream_of(fake) as upstream:
        assert await ask(upstream) == await ask(upstream) == (200, b"{}")

    assert len(ports) == 1


async def test_redirect_is_an_error():
    moved = b"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"

    async with FakeUpstream(answer=moved) as fake, upstream_of(fake) as upstream:
        with pytest.raises(UpstreamFailed, match="redirect"):
            await ask(upstream)


async def test_interim_answers_are_skipped():
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"

    async with FakeUpstream(answer=early + OK) as fake, upstream_of(fake) as upstream:
        assert await ask(upstream) == (200, b"{}")


async def test_a_refused_connection_is_502_with_the_name_in_the_log_only(caplog):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    caplog.set_level(logging.INFO)
    async with Upstream(
        UpstreamConfig(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret")
    ) as upstream:
        with pytest.raises(UpstreamFailed) as failed:
            await ask(upstream, query=b"user=private")

    assert failed.value.status == 502
    assert "127.0.0.1" not in failed.value.message
    assert f"127.0.0.1:{port}" in logged(caplog)
    assert "secret" not in logged(caplog)
    assert "private" not in logged(caplog)


async def test_a_name_that_does_not_resolve_is_502():
    async with Upstream(
        UpstreamConfig(base_url="http://upstream.invalid/v1", api_key="k")
    ) as upstream:
        with pytest.raises(UpstreamFailed) as failed:
            await ask(upstream)

    assert "upstream.invalid" not in failed.value.message


async def test_a_server_without_tls_is_502_over_https():
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        Upstream(UpstreamConfig(base_url=f"https://127.0.0.1:{port}/v1", api_key="k")) as upstream,
    ):
        with pytest.raises(UpstreamFailed) as failed:
            await ask(upstream)

    assert isinstance(failed.value.__cause__, ssl.SSLError | OSError)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"ouch\r\n\r\n",
        b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 abc X\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-big: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x-many: 1\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nopenai-control: a\x01b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length",
    ],
    ids=lambda raw: raw[:40].decode(),
)
async def test_invalid_answer_is_502(garbage: bytes):
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(garbage)

    failed = await failure_of(FakeUpstream(answer=answer))

    assert isinstance(failed, UpstreamFailed)
    assert "127.0.0.1" not in failed.message


async def test_an_endless_header_is_502_long_before_the_deadline():
    async def answer(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nx-endless: ")
        while not connection.writer.is_closing():
            await connection.send(b"x" * 8192)

    async with asyncio.timeout(30):
        assert isinstance(await failure_of(FakeUpstream(answer=answer)), UpstreamFailed)


async def test_endless_interim_answers_end_at_the_deadline():
    async def answer(_: Message, connection: Connection) -> None:
        while not connection.writer.is_closing():
            await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.01)

    assert isinstance(
        await failure_of(FakeUpstream(answer=answer), idle_timeout_s=0.2), UpstreamTimeout
    )


async def test_silence_is_504():
    failed = await failure_of(FakeUpstream(answer=silence), idle_timeout_s=0.1)

    assert isinstance(failed, UpstreamTimeout)
    assert failed.status == 504


async def test_the_first_bytes_deadline_does_not_run_while_there_is_no_connection():
    async def begins(_: Message, connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await asyncio.Event().wait()

    deadlines = {"connect_timeout_s": 2, "first_byte_timeout_s": 1, "idle_timeout_s": 20}
    async with (
        FakeUpstream(answer=begins) as fake,
        upstream_of(fake, concurrency=1, **deadlines) as upstream,
    ):
        first = asyncio.create_task(ask(upstream))
        assert await comes_true(lambda: bool(fake.requests), within_s=5)
        with pytest.raises(UpstreamTimeout) as late:
            await ask(upstream)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    assert not late.value.may_be_processed


async def test_the_first_bytes_deadline_runs_from_the_connection_on():
    async def slow_head(_: Message, connection: Connection) -> None:
        await asyncio.sleep(2)
        await connection.send(OK)

    late = {"first_byte_timeout_s": 0.1, "idle_timeout_s": 5}
    failed = await failure_of(FakeUpstream(answer=slow_head), **late)

    assert isinstance(failed, UpstreamTimeout)
    assert failed.may_be_processed


async def test_slow_reader_is_no_timeout_of_the_upstream():
    async def much(_: Message, connection: Connection) -> None:
        await connection.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n" + bytes(4_000_000)
        )

    async with FakeUpstream(answer=much) as fake, upstream_of(fake, idle_timeout_s=0.5) as upstream:
        request = {"method": "GET", "path": "/x", "query": b"", "headers": [], "body": b""}
        relayed = await upstream.exchange(**request)
        await asyncio.sleep(1)
        read = sum([len(piece) async for piece in relayed.body])
        await relayed.aclose()

    assert read == 4_000_000


async def test_an_upstream_that_breaks_off_every_answer_is_ejected():
    async with FakeUpstream(answer=breaking_off(b"200 OK")) as fake, upstream_of(fake) as upstream:
        for _ in range(3):
            with pytest.raises(UpstreamFailed):
                await ask(upstream)

        assert upstream.health.is_ejected
        fake.answer = OK
        await ask(upstream)
        assert not upstream.health.is_ejected


async def test_an_answer_that_fails_twice_is_one_failure():
    async with FakeUpstream(answer=breaking_off(b"503 X")) as fake, upstream_of(fake) as upstream:
        for _ in range(2):
            with pytest.raises(UpstreamFailed):
                await ask(upstream)
        was_ejected = upstream.health.is_ejected
        with pytest.raises(UpstreamFailed):
            await ask(upstream)

        assert not was_ejected
        assert upstream.health.is_ejected


@pytest.mark.parametrize("is_valid_between", [False, True])
async def test_a_complete_answer_that_is_invalid_is_a_failure(is_valid_between):
    async with FakeUpstream(answer=OK) as fake, upstream_of(fake) as upstream:
        request = {"method": "GET", "path": "/x", "query": b"", "headers": [], "body": b""}
        for _ in range(3):
            relayed = await upstream.exchange(**request)
            await relayed.read(1000)
            if is_valid_between:
                await ask(upstream)
            relayed.report_invalid(UpstreamFailed("It is no image."))

        assert upstream.health.is_ejected is not is_valid_between


async def test_upstream_that_reads_no_body_is_504():
    async def answer(_: Message, connection: Connection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # both ways
        await asyncio.Event().wait()

    async with (
        FakeUpstream(answer=answer, reads_bodies=False) as fake,
        upstream_of(fake, idle_timeout_s=0.2) as upstream,
    ):
        with pytest.raises(UpstreamTimeout):
            await ask(upstream, body=bytes(32 * 1024 * 1024))


async def test_slow_upload_is_no_timeout_of_the_upstream():
    async def slow():
        for _ in range(30):
            await asyncio.sleep(0.1)
            yield b"a"

    async with FakeUpstream() as fake, upstream_of(fake, idle_timeout_s=2.5) as upstream:
        assert await ask(upstream, body=slow()) == (200, b"{}")

    assert fake.requests[0].body == b"a" * 30
    assert fake.requests[0].values(b"transfer-encoding") == [b"chunked"]


@pytest.mark.parametrize("sent_first", [False, True])
async def test_body_that_is_refused_at_its_beginning_reaches_no_upstream(sent_first: bool):
    async def refused():
        if sent_first:
            yield b"beginning"
        raise InvalidRequest("no")

    async with FakeUpstream() as fake, upstream_of(fake) as upstream:
        with pytest.raises(InvalidRequest):
            await ask(upstream, body=refused())
        assert await ask(upstream, path="/later") == (200, b"{}")

    paths = [request.first_line.split()[1] for request in fake.requests]
    assert paths[-1] == b"/v1/later"
    assert len(paths) == 1 + sent_first


async def test_a_full_pool_is_504():
    async with (
        FakeUpstream(answer=silence) as fake,
        upstream_of(fake, concurrency=1, connect_timeout_s=0.5) as upstream,
    ):
        first = asyncio.create_task(ask(upstream))
        assert await comes_true(lambda: bool(fake.requests), within_s=5)
        with pytest.raises(UpstreamTimeout):
            await ask(upstream)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_models_are_fetched_once_and_cached():
    async with FakeUpstream(answer=models("a", "b")) as fake, upstream_of(fake) as upstream:
        lists = await asyncio.gather(*(upstream.models() for _ in range(20)))
        lists.append(await upstream.models())

    assert [[model["id"] for model in listed] for listed in lists] == [["a", "b"]] * 21
    assert [request.first_line for request in fake.requests] == [b"GET /v1/models HTTP/1.1"]


async def test_models_are_fetched_again_when_the_cache_expires():
    async with (
        FakeUpstream(answer=models("a")) as fake,
        upstream_of(fake, models_ttl_s=0.05) as upstream,
    ):
        await upstream.models()
        fake.answer = models("b")
        await asyncio.sleep(0.1)
        assert [model["id"] for model in await upstream.models()] == ["b"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n<html></>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + b'{"data":"x"}',
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
    ],
)
async def test_no_list_of_models_is_a_failure(answer: bytes):
    async with FakeUpstream(answer=answer) as fake, upstream_of(fake) as upstream:
        with pytest.raises(UpstreamFailed):
            await upstream.models()


async def test_list_of_models_hides_no_failures_of_other_requests():
    down = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"

    async def answer(request: Message, connection: Connection) -> None:
        await connection.send(models("a") if b"/models" in request.first_line else down)

    async with FakeUpstream(answer=answer) as fake, upstream_of(fake, models_ttl_s=0) as upstream:
        for _ in range(3):
            await ask(upstream)
            await upstream.models()

        assert upstream.health.is_ejected


async def test_key_that_may_not_list_models_ejects_no_upstream():
    fake = FakeUpstream(answer=b"HTTP/1.1 403 X\r\ncontent-length: 0\r\n\r\n")
    async with fake, upstream_of(fake, models_ttl_s=0) as upstream:
        for _ in range(4):
            with pytest.raises(UpstreamFailed, match="key"):
                await upstream.models()

        assert len(fake.requests) == 4
        assert not upstream.health.is_ejected
        assert upstream.outstanding == 0


async def test_cancelled_fetch_of_models_does_not_cancel_others():
    admission = asyncio.Event()

    async def late(_: Message, connection: Connection) -> None:
        await admission.wait()
        await connection.send(models("a"))

    async with FakeUpstream(answer=late) as fake, upstream_of(fake) as upstream:
        impatient, patient = (asyncio.create_task(upstream.models()) for _ in range(2))
        await settle()
        impatient.cancel()
        admission.set()
        assert len(await patient) == 1


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://host/", "http://user:pw@host/v1"])
def test_a_base_url_that_is_none_is_refused(url: str):
    with pytest.raises(ValueError, match="base URL"):
        Upstream(UpstreamConfig(base_url=url, api_key="k"))


async def test_bytes_of_a_header_pass_unchanged():
    async with FakeUpstream() as fake, upstream_of(fake) as upstream:
        await ask(upstream, headers=[(b"User-Agent", b"caf\xe9")])

    assert fake.requests[0].values(b"user-agent") == [b"caf\xe9"]


async def test_a_header_with_a_line_break_is_not_sent():
    async with FakeUpstream() as fake, upstream_of(fake) as upstream:
        for value in (b"a\r\nx-injected: 1", b"a\nb", b"a\x00b"):
            with pytest.raises(ValueError, match="control character"):
                await ask(upstream, headers=[(b"user-agent", value)])

        assert upstream.outstanding == 0
    assert fake.requests == []


def test_a_header_that_a_websocket_cannot_send_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="user-agent"):
        as_text([(b"user-agent", b"caf\xe9")])


def test_hop_by_hop_headers_are_removed():
    pairs = [
        (b"Connection", b"close, Content-Language, OpenAI-Beta"),
        (b"Content-Language", b"en"),
        (b"OpenAI-Beta", b"1"),
        (b"Keep-Alive", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"3"),
        (b"Upgrade", b"h2c"),
        (b"Content-Type", b"1"),
        (b"content-type", b"2"),
    ]
    kept = ((b"content-type", b"1"), (b"content-type", b"2"))

    assert answer_headers(pairs, status=200) == kept
    assert request_headers(pairs) == list(kept)


def test_an_answer_without_a_body_has_no_length():
    assert answer_headers([(b"content-length", b"5")], status=304) == ()
