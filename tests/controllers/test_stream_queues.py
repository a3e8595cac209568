"""Streams: in order within one, concurrent with each other, and limited in number."""

import asyncio

import pytest

from llm_backend.controllers.websockets.stream_queues import StreamQueues
from llm_backend.errors import RateLimited


class Work:
    """Notes when it begins, and ends when it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()
        self.cancelled: list[str] = []

    def named(self, name):
        async def work():
            self.begun.append(name)
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise

        return work


def a_queue(waiting_limit: int) -> StreamQueues:
    return StreamQueues(streams_limit=2, waiting_limit=waiting_limit, waiting_limit_bytes=10)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_is_done_in_order_and_streams_at_the_same_time():
    work, queues = Work(), a_queue(waiting_limit=2)
    for stream, name in ((None, "a1"), ("b", "b1"), (None, "a2")):
        queues.add(stream, work.named(name), 1)
    await turns()
    begun_at_first = list(work.begun)
    work.may_end.set()
    await turns()

    assert begun_at_first == ["a1", "b1"]
    assert work.begun == ["a1", "b1", "a2"]
    assert queues.idle_s > 0


@pytest.mark.parametrize(
    ("third", "code"),
    [("c", "websocket_stream_limit_reached"), ("a", "websocket_queue_limit_reached")],
)
async def test_one_too_many_is_refused(third, code):
    work, queues = Work(), a_queue(waiting_limit=1)
    for stream in ("a", "b", "b"):
        queues.add(stream, work.named(stream), 1)
    with pytest.raises(RateLimited) as refused:
        queues.add(third, work.named("third"), 1)
    await queues.aclose()

    assert refused.value.code == code


async def test_requests_that_wait_are_bounded_by_their_bytes():
    work, queues = Work(), a_queue(waiting_limit=9)
    for size_bytes in (100, 4, 6):  # the first does not wait
        queues.add("a", work.named(f"{size_bytes} bytes"), size_bytes)
    with pytest.raises(RateLimited) as refused:
        queues.add("a", work.named("one more"), 1)
    work.may_end.set()
    await turns()
    work.may_end.clear()
    for size_bytes in (100, 10):
        queues.add("a", work.named(f"{size_bytes} bytes later"), size_bytes)
    await queues.aclose()

    assert refused.value.code == "websocket_queue_limit_reached"
    assert work.begun[:3] == ["100 bytes", "4 bytes", "6 bytes"]


async def test_all_is_given_up_at_the_end():
    work, queues = Work(), a_queue(waiting_limit=1)
    queues.add("a", work.named("a"), 1)
    queues.add("a", work.named("later"), 1)
    await turns()
    await queues.aclose()

    assert work.cancelled == ["a"]
    assert queues.idle_s > 0
