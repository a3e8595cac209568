"""Lanes: in order within one, beside each other, and only so many."""

import asyncio

import pytest

from llm_backend.controllers.websockets.lanes import Lanes
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


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lane_is_done_in_order_and_lanes_at_the_same_time():
    work, lanes = Work(), Lanes(lanes_limit=2, waiting_limit=2)
    for lane, name in ((None, "a1"), ("b", "b1"), (None, "a2")):
        lanes.add(lane, work.named(name))
    await turns()
    begun_at_first = list(work.begun)
    work.may_end.set()
    await turns()

    assert begun_at_first == ["a1", "b1"]
    assert work.begun == ["a1", "b1", "a2"]
    assert lanes.is_quiet


@pytest.mark.parametrize(
    ("third", "code"),
    [("c", "websocket_stream_limit_reached"), ("a", "websocket_queue_limit_reached")],
)
async def test_one_too_many_is_refused(third, code):
    work, lanes = Work(), Lanes(lanes_limit=2, waiting_limit=1)
    for lane in ("a", "b", "b"):
        lanes.add(lane, work.named(lane))
    with pytest.raises(RateLimited) as refused:
        lanes.add(third, work.named("third"))
    await lanes.aclose()

    assert refused.value.code == code


async def test_all_is_given_up_at_the_end():
    work, lanes = Work(), Lanes(lanes_limit=2, waiting_limit=1)
    lanes.add("a", work.named("a"))
    lanes.add("a", work.named("later"))
    await turns()
    await lanes.aclose()

    assert work.cancelled == ["a"]
    assert lanes.is_quiet
