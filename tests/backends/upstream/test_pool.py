"""Upstream pool: balancing, ejection, retries and waiting."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.pool import UpstreamPool
from llm_backend.backends.upstream.retry_rules import backoff_s
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.errors import ServiceUnavailable, UpstreamFailed
from tests.gateway import closed_port
from tests.patience import settle
from tests.upstream import Connection, FakeUpstream, Message

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 429 X\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n"
SHUT = b"HTTP/1.1 401 X\r\ncontent-length: 0\r\n\r\n"
DOWN = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def pool(*fakes: FakeUpstream | None, **settings: object):
    """Upstreams of these fakes, named by their number; None has a closed port."""
    async with AsyncExitStack() as stack:
        upstreams = []
        for number, fake in enumerate(fakes):
            if fake is None:
                base_url = f"http://127.0.0.1:{stack.enter_context(closed_port())}/v1"
            else:
                base_url = (await stack.enter_async_context(fake)).base_url
            config = UpstreamConfig(name=str(number), base_url=base_url, **settings)
            upstreams.append(Upstream(config))
        yield await stack.enter_async_context(UpstreamPool(upstreams))


def asked(method: str = "POST", **more: object) -> UpstreamRequest:
    values = {"path": "/x", "query": b"", "headers": [], "body": b"{}", "model": "m", **more}
    return UpstreamRequest(method=method, **values)


async def ask(upstreams: UpstreamPool, request: UpstreamRequest | None = None) -> int:
    relayed: UpstreamAnswer = await upstreams.exchange(request or asked())
    try:
        async for _ in relayed.body:
            pass
        return relayed.status
    finally:
        await relayed.aclose()


KEYED = asked(headers=[(b"Idempotency-Key", b"1")])


async def silence(_: Message, __: Connection) -> None:
    await asyncio.Event().wait()


async def cut(_: Message, connection: Connection) -> None:
    connection.cut()


async def test_requests_are_balanced():
    fakes = FakeUpstream(answer=OK), FakeUpstream(answer=OK)
    async with pool(*fakes) as upstreams:
        for _ in range(4):
            assert await ask(upstreams) == 200

    assert [len(fake.requests) for fake in fakes] == [2, 2]


async def test_unreachable_upstream_is_skipped_and_ejected():
    fake = FakeUpstream(answer=OK)
    async with pool(None, fake) as upstreams:
        for _ in range(10):
            assert await ask(upstreams) == 200
        ill = upstreams._upstreams["0"]

        assert ill.health.is_ejected
    assert len(fake.requests) == 10


@pytest.mark.parametrize("answer", [BUSY, DOWN])
async def test_refused_request_is_retried_at_another_upstream(answer: bytes):
    fakes = FakeUpstream(answer=answer), FakeUpstream(answer=OK)
    async with pool(*fakes) as upstreams:
        assert [await ask(upstreams) for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("answer", [SHUT, SHUT.replace(b"401", b"403")])
async def test_upstream_that_rejects_its_key_is_skipped_and_ejected(answer: bytes):
    fakes = FakeUpstream(answer=answer), FakeUpstream(answer=OK)
    async with pool(*fakes) as upstreams:
        assert [await ask(upstreams) for _ in range(9)] == [200] * 9

        assert upstreams._upstreams["0"].health.is_ejected
    assert len(fakes[0].requests) == 3


async def test_rejected_keys_everywhere_are_tried_once_each():
    fakes = FakeUpstream(answer=SHUT), FakeUpstream(answer=SHUT)
    async with pool(*fakes) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams)

    assert [len(fake.requests) for fake in fakes] == [1, 1]


async def test_only_upstreams_refusal_is_the_answer():
    fake = FakeUpstream(answer=BUSY)
    async with pool(fake) as upstreams:
        assert await ask(upstreams) == 429

    assert len(fake.requests) == 1


async def test_possibly_processed_request_is_not_retried():
    fakes = FakeUpstream(answer=cut), FakeUpstream(answer=cut)
    async with pool(*fakes) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams)

    assert sum(len(fake.requests) for fake in fakes) == 1


async def test_idempotent_request_is_retried():
    fakes = FakeUpstream(answer=cut), FakeUpstream(answer=OK)
    async with pool(*fakes) as upstreams:
        assert [await ask(upstreams, asked("GET", body=b"")) for _ in range(2)] == [200, 200]


async def test_idempotency_key_allows_no_retry_at_other_upstreams():
    fakes = FakeUpstream(answer=cut), FakeUpstream(answer=cut)
    async with pool(*fakes) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams, KEYED)

    assert sum(len(fake.requests) for fake in fakes) == 1


async def test_idempotency_key_allows_a_retry_at_the_same_upstream():
    async def cut_once(_: Message, connection: Connection) -> None:
        first = fakes[0].requests[0]
        if len(fakes[0].requests) > 1:
            await connection.send(OK)
        elif first:
            connection.cut()

    fakes = FakeUpstream(answer=cut_once), FakeUpstream(answer=OK)
    async with pool(*fakes, honours_idempotency_key=True) as upstreams:
        assert await ask(upstreams, KEYED) == 200

    assert [len(fake.requests) for fake in fakes] == [2, 0]


async def test_retry_stays_at_an_unreachable_upstream_that_may_have_the_request():
    async def last(_: Message, connection: Connection) -> None:
        fakes[0]._server.close()
        connection.cut()

    fakes = FakeUpstream(answer=last), FakeUpstream(answer=OK)
    async with pool(*fakes, honours_idempotency_key=True) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams, KEYED)

    assert [len(fake.requests) for fake in fakes] == [1, 0]


async def test_streamed_body_is_unread_until_an_upstream_is_reached():
    async def body():
        yield b"abc"

    fake = FakeUpstream(answer=OK)
    async with pool(None, fake) as upstreams:
        assert await ask(upstreams, asked(body=body())) == 200

    assert fake.requests[0].body == b"abc"


@pytest.mark.parametrize("answer", [BUSY, DOWN, BROKEN])
async def test_failure_is_raised_if_another_backend_can_answer(answer: bytes):
    async with pool(FakeUpstream(answer=answer)) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams, asked(has_fallback=True))


async def test_upstream_is_tried_once_if_another_backend_can_answer():
    async with pool(None) as upstreams:
        with pytest.raises(UpstreamFailed):
            await ask(upstreams, asked(has_fallback=True))
        ill = upstreams._upstreams["0"]

        assert not ill.health.is_ejected


async def test_ejected_upstream_is_tried_if_all_are_ejected():
    fake = FakeUpstream(answer=DOWN)
    async with pool(fake) as upstreams:
        for _ in range(5):
            await ask(upstreams)
        with pytest.raises(ServiceUnavailable):
            await ask(upstreams, asked(has_fallback=True))

    assert len(fake.requests) == 5


async def test_outstanding_requests_are_limited():
    fake = FakeUpstream(answer=silence)
    async with pool(fake, concurrency=1, connect_timeout_s=0.5) as upstreams:
        first = asyncio.create_task(ask(upstreams))
        while not fake.requests:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.005)
        with pytest.raises(ServiceUnavailable) as refused:
            await ask(upstreams)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        fake.answer = OK

        assert await ask(upstreams) == 200
    assert refused.value.headers == {"Retry-After": "1"}
    assert len(fake.requests) == 2


async def test_callers_take_turns_and_new_requests_do_not_overtake():
    gates = [asyncio.Event() for _ in range(6)]

    async def one_after_another(_: Message, connection: Connection) -> None:
        await gates[len(fake.requests) - 1].wait()
        await connection.send(OK)

    fake = FakeUpstream(answer=one_after_another)
    async with pool(fake, concurrency=1) as upstreams:
        asking = [
            asyncio.create_task(ask(upstreams, asked(fairness_key=who, path=f"/{number}")))
            for number, who in enumerate(["a", "a", "a", "b", "b"])
        ]
        await settle()
        gates[0].set()
        while len(fake.requests) < 2:  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.005)
        asking.append(asyncio.create_task(ask(upstreams, asked(fairness_key="c", path="/5"))))
        await settle()
        for admission in gates:
            admission.set()
        assert await asyncio.gather(*asking) == [200] * 6

    paths = [request.first_line.split()[1] for request in fake.requests]
    assert paths == [b"/v1/0", b"/v1/1", b"/v1/3", b"/v1/2", b"/v1/5", b"/v1/4"]


async def test_waiting_request_gets_a_free_permit():
    fake = FakeUpstream(answer=OK)
    async with pool(fake, concurrency=2) as upstreams:
        assert await asyncio.gather(*(ask(upstreams) for _ in range(12))) == [200] * 12


async def test_every_request_releases_its_permit():
    fakes = FakeUpstream(answer=OK), FakeUpstream(answer=cut), None
    async with pool(*fakes) as upstreams:
        await asyncio.gather(*(ask(upstreams) for _ in range(20)), return_exceptions=True)

        assert [one.outstanding for one in upstreams._upstreams.values()] == [0, 0, 0]


async def test_model_lists_are_merged_without_failed_upstreams():
    listed = b'{"object":"list","data":[{"id":"a"},{"id":"b"}]}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(listed), listed)
    async with pool(FakeUpstream(answer=answer), None, models=["a*"]) as upstreams:
        assert [model["id"] for model in await upstreams.models()] == ["a"]


def test_backoff_grows_with_half_jitter():
    assert [backoff_s(attempt, 1.0) for attempt in (1, 2, 3, 10)] == [0.05, 0.1, 0.2, 1.0]
    assert backoff_s(1, 0.0) == 0.025
