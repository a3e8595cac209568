"""Fair semaphore: beyond the capacity, permits are granted round-robin by caller."""

import asyncio

import pytest

from llm_backend.errors import ServiceUnavailable
from llm_backend.fair_queue import FairSemaphore
from tests.patience import settle


def semaphore(depth: int = 100, timeout_s: float = 5) -> FairSemaphore:
    return FairSemaphore(1, depth=depth, timeout_s=timeout_s)


async def waiting(one: FairSemaphore, *callers: str) -> tuple[list[str], list[asyncio.Task[None]]]:
    """These callers in the line, in this order; and who has entered, as they do."""
    entered: list[str] = []

    async def enter(who: str) -> None:
        await one.acquire(who)
        entered.append(who)

    tasks = []
    for who in callers:
        tasks.append(asyncio.create_task(enter(who)))
        await asyncio.sleep(0)
    return entered, tasks


async def test_callers_take_turns_however_many_requests_each_has():
    busy = semaphore()
    await busy.acquire("x")
    entered, tasks = await waiting(busy, "a", "a", "a", "b", "c")
    for _ in tasks:
        busy.release()
        await settle()

    assert entered == ["a", "b", "c", "a", "a"]


async def test_timeout_in_the_queue_raises_overloaded_with_retry_after():
    busy = semaphore(timeout_s=0.01)
    await busy.acquire("x")

    with pytest.raises(ServiceUnavailable, match="waited") as refused:
        await busy.acquire("a")
    assert (refused.value.status, busy.waiting) == (503, 0)
    assert refused.value.retry_after_s
    busy.release()
    assert busy.try_acquire()


async def test_full_queue_drops_the_newest_request_of_the_caller_with_most():
    busy = semaphore(depth=3)
    await busy.acquire("x")
    entered, tasks = await waiting(busy, "a", "a", "a", "b")

    with pytest.raises(ServiceUnavailable):
        await tasks[2]
    with pytest.raises(ServiceUnavailable):
        await busy.acquire("a")
    for _ in range(3):
        busy.release()
        await settle()
    assert entered == ["a", "b", "a"]


async def test_cancelled_request_leaves_no_gap_in_the_queue():
    busy = semaphore()
    await busy.acquire("x")
    entered, tasks = await waiting(busy, "a", "b", "c")
    tasks[0].cancel()
    await asyncio.sleep(0)
    busy.release()
    tasks[1].cancel()  # its place has been given, and not been taken yet
    await settle()

    assert entered == ["c"]
    busy.release()
    assert busy.try_acquire()
    assert busy.waiting == 0


async def test_depth_zero_refuses_at_once():
    busy = semaphore(depth=0)
    await busy.acquire("x")

    with pytest.raises(ServiceUnavailable):
        await busy.acquire("a")


async def test_cancelled_request_makes_room_in_a_full_queue():
    busy = semaphore(depth=3)
    await busy.acquire("x")
    _, tasks = await waiting(busy, "a", "a", "a")
    tasks[2].cancel()  # and has not been told yet
    coming = asyncio.create_task(busy.acquire("b"))
    await settle()

    assert not coming.done()
    assert busy.waiting == 3
    busy.release()
    await tasks[0]
    busy.release()
    await coming
