"""Concurrency limits of one server, and of several that share a database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llm_backend.access.limits.concurrency import (
    DOWN_S,
    LEASE_S,
    ConcurrencyLimit,
    SharedConcurrencyLimits,
    acquire_all,
    release_all,
)
from llm_backend.block_grants import BLOCKS
from llm_backend.errors import RequestsLimited
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import ConcurrencyLeases
from tests.clock import Clock


class Counting(ConcurrencyLeases):
    """Counts how often it is asked, and is there or not."""

    asked = 0
    is_down = False

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.on_granted: Callable[[], object] = lambda: None

    async def apply(self, *args, **kwargs):
        self.asked += 1
        if self.is_down:
            raise StoreUnavailable("gone")
        granted = await super().apply(*args, **kwargs)
        self.on_granted()
        return granted


class Servers:
    """Two servers with a clock and a database."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock(0)
        self.stored = Counting(database)
        self.shared = [SharedConcurrencyLimits(self.stored, clock=self.clock) for _ in range(2)]

    def slots(self, most: int) -> list[ConcurrencyLimit]:
        return [ConcurrencyLimit("key a", most, one) for one in self.shared]

    async def wait_idle(self) -> None:
        for one in self.shared:
            await one.wait_idle()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield Servers(database)


async def acquire_many(limit: ConcurrencyLimit, number: int) -> int:
    """Returns the number of permits that were acquired of `number`."""
    results = await asyncio.gather(
        *(limit.acquire() for _ in range(number)), return_exceptions=True
    )
    assert all(one is None or isinstance(one, RequestsLimited) for one in results)
    return sum(one is None for one in results)


async def test_unshared_limit_is_counted_in_memory():
    limit = ConcurrencyLimit("key a", 2)

    assert await acquire_many(limit, 5) == 2
    limit.release()
    assert await acquire_many(limit, 5) == 1


async def test_acquire_all_takes_all_permits_or_none():
    free, full = ConcurrencyLimit("key a", 1), ConcurrencyLimit("project a", 0)

    with pytest.raises(RequestsLimited, match="project a"):
        await acquire_all([free, full])
    assert free.running == 0
    await acquire_all([free])
    release_all([free])


@pytest.mark.parametrize("most", [1, 3, 50])
async def test_servers_together_run_as_many_as_one(servers, most):
    a, b = servers.slots(most)
    first = await acquire_many(a, most - 1)

    assert most - most // BLOCKS <= first + await acquire_many(b, most + 5) <= most


async def test_released_permits_are_available_to_other_servers(servers):
    a, b = servers.slots(1)
    await a.acquire()
    assert await acquire_many(b, 1) == 0
    a.release()
    await servers.wait_idle()
    servers.clock.now = 1.0

    assert await acquire_many(b, 1) == 1


async def test_an_idle_server_returns_all_permits_with_its_renewal(servers):
    a, b = servers.slots(100)
    await a.acquire()
    a.release()
    await servers.wait_idle()
    assert await acquire_many(b, 100) < 100
    servers.clock.now = 1.0

    await servers.shared[0].renew()
    await servers.wait_idle()

    assert a.granted == 0
    assert b.running + await acquire_many(b, 100) == 100


async def test_a_server_keeps_its_permits_while_one_is_used(servers):
    a, _ = servers.slots(100)
    await a.acquire()
    granted = a.granted

    await servers.shared[0].renew()
    await servers.wait_idle()

    assert (a.granted, a.running) == (granted, 1)


async def test_cancelled_acquire_takes_no_permit(servers):
    a, b = servers.slots(1)
    asking = asyncio.create_task(a.acquire())
    while not servers.stored.asked:  # noqa: ASYNC110 # it has no event for that
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    await servers.wait_idle()
    servers.clock.now = 1.0

    assert await acquire_many(b, 1) == 1


async def test_a_request_whose_permit_another_one_took_requests_another(servers):
    limit, _ = servers.slots(2)
    others: list[asyncio.Task[None]] = []

    def arrive() -> None:  # before the request that waits for this permit goes on
        if not others:
            others.append(asyncio.create_task(limit.acquire()))

    servers.stored.on_granted = arrive
    await limit.acquire()
    await others[0]

    assert limit.running == 2
    with pytest.raises(RequestsLimited):
        await limit.acquire()


async def test_reserve_of_permits_saves_database_queries(servers):
    a, b = servers.slots(200)
    for _ in range(3):
        await acquire_many(a, 50)
        for _ in range(50):
            a.release()
    await servers.wait_idle()

    assert servers.stored.asked <= 15
    assert await acquire_many(b, 200) >= 180


async def test_permits_of_a_dead_server_are_free_after_its_lease(servers):
    a, b = servers.slots(2)
    await acquire_many(a, 2)
    servers.clock.now = LEASE_S - 1.0
    assert await acquire_many(b, 1) == 0
    servers.clock.now = LEASE_S + 1.0

    assert await acquire_many(b, 3) == 2


async def test_renewed_lease_keeps_its_permits_until_release(servers):
    a, b = servers.slots(2)
    await acquire_many(a, 2)
    servers.clock.now = LEASE_S - 1.0
    await servers.shared[0].renew()
    servers.clock.now = LEASE_S + 1.0
    assert await acquire_many(b, 1) == 0
    await servers.shared[0].release_all()
    servers.clock.now += 1.0

    assert await acquire_many(b, 1) == 1


async def test_lease_that_expired_in_an_outage_is_restored_by_the_next_renewal(servers):
    a, b = servers.slots(2)
    await acquire_many(a, 2)
    servers.clock.now = LEASE_S + 1.0
    await servers.shared[1].expire()
    await servers.shared[0].renew()

    assert await acquire_many(b, 1) == 0
    a.release()
    a.release()
    await servers.wait_idle()
    servers.clock.now += 1.0
    await servers.shared[0].renew()
    assert await acquire_many(b, 2) == 2


async def test_permits_released_in_an_outage_are_returned_after_it(servers):
    a, b = servers.slots(50)
    await acquire_many(a, 50)
    servers.stored.is_down, asked = True, servers.stored.asked
    for _ in range(50):
        a.release()
        await servers.wait_idle()
    assert servers.stored.asked == asked + 1

    servers.stored.is_down, servers.clock.now = False, DOWN_S
    await servers.shared[0].renew()
    await servers.wait_idle()
    assert await acquire_many(b, 40) == 40


async def test_servers_enforce_the_limit_alone_during_an_outage(servers):
    a, b = servers.slots(2)
    servers.stored.is_down = True

    assert [await acquire_many(a, 5), await acquire_many(b, 5)] == [2, 2]
    assert servers.stored.asked == 2
    servers.stored.is_down = False
    for one in (a, a, b, b):
        one.release()
    servers.clock.now = DOWN_S
    assert [await acquire_many(a, 5), await acquire_many(b, 5)] == [2, 0]


async def test_failed_return_of_permits_is_retried(servers):
    a, b = servers.slots(1)
    await a.acquire()
    servers.stored.is_down = True
    a.release()
    await servers.wait_idle()
    servers.stored.is_down, servers.clock.now = False, DOWN_S
    await a.acquire()
    a.release()
    await servers.wait_idle()

    assert await acquire_many(b, 1) == 1


async def test_repeated_refusals_do_not_query_the_database(servers):
    a, b = servers.slots(1)
    await a.acquire()
    for _ in range(20):
        await acquire_many(b, 1)

    assert servers.stored.asked == 2
