"""Fair queue: round-robin between callers, groups of resources, timeouts and a full queue."""

import asyncio

import pytest

from llm_backend.errors import ServiceUnavailable
from llm_backend.fair_queue import FairQueue, FairSemaphore


class Pool:
    """Named resources and the queue for them."""

    def __init__(self, depth: int = 100) -> None:
        self.free: set[str] = set()
        self.served: list[str] = []
        self.queue: FairQueue[str] = FairQueue(self.put, depth=depth)

    def put(self, resource: str) -> None:
        self.free.add(resource)
        self.queue.grant_next()

    def _take(self, wanted: str) -> str | None:
        return self.free.pop() if self.free & set(wanted) else None

    async def wait(self, caller: str, wanted: str = "x", timeout_s: float = 5) -> str:
        resource = await self.queue.wait(
            caller, lambda: self._take(wanted), group=wanted, timeout_s=timeout_s
        )
        self.served.append(caller)
        return resource


async def start(pool: Pool, *callers: str) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(pool.wait(caller)) for caller in callers]
    await asyncio.sleep(0)
    return tasks


async def test_callers_are_served_round_robin() -> None:
    pool = Pool()
    tasks = await start(pool, "a", "a", "a", "b", "c")
    for _ in tasks:
        pool.put("x")
    await asyncio.gather(*tasks)

    assert pool.served == ["a", "b", "c", "a", "a"]
    assert not pool.queue.grant_next()


async def test_a_busy_resource_does_not_block_requests_for_others() -> None:
    pool = Pool()
    first, second = [asyncio.create_task(pool.wait(caller, caller)) for caller in "xy"]
    await asyncio.sleep(0)
    pool.put("y")

    assert await second == "y"
    assert not first.done()
    pool.put("x")
    assert await first == "x"


async def test_a_timeout_leaves_the_queue_and_names_the_wait() -> None:
    pool = Pool()
    with pytest.raises(
        ServiceUnavailable, match=r"is busy, and this request has waited for 0.01 s"
    ) as one:
        await pool.wait("a", timeout_s=0.01)

    assert one.value.retry_after_s
    assert len(pool.queue) == 0


async def test_a_full_queue_drops_the_newest_request_of_the_caller_with_most() -> None:
    pool = Pool(depth=3)
    tasks = await start(pool, "a", "a", "a", "b")
    with pytest.raises(ServiceUnavailable, match="its queue is full"):
        await tasks[2]
    with pytest.raises(ServiceUnavailable):
        await pool.wait("a")

    assert len(pool.queue) == 3
    for _ in range(3):
        pool.put("x")
    await asyncio.gather(tasks[0], tasks[1], tasks[3])
    assert pool.served == ["a", "b", "a"]


async def test_the_resource_of_a_cancelled_request_goes_to_the_next() -> None:
    pool = Pool()
    first, second = await start(pool, "a", "b")
    pool.put("x")
    first.cancel()  # granted, and not resumed yet

    assert await second == "x"
    assert len(pool.queue) == 0


async def test_a_permit_that_a_cancelled_request_left_goes_to_a_later_one() -> None:
    semaphore = FairSemaphore(1, depth=4, timeout_s=5)
    await semaphore.acquire("a")
    cancelled = asyncio.create_task(semaphore.acquire("a"))
    await asyncio.sleep(0)
    cancelled.cancel()
    semaphore.release()  # the cancelled request, still in the queue, gets nothing

    async with asyncio.timeout(1):
        await semaphore.acquire("b")
