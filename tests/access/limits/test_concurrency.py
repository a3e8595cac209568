"""How many requests run at once, at one server or at several that share a database."""

import asyncio
from collections.abc import AsyncIterator
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
from llm_backend.store.administration import Running
from tests.clock import Clock


class Counting(Running):
    """Counts how often it is asked, and is there or not."""

    asked = 0
    is_down = False

    async def exchange(self, *args, **kwargs):
        self.asked += 1
        if self.is_down:
            raise StoreUnavailable("gone")
        return await super().exchange(*args, **kwargs)


class Servers:
    """Two servers with a clock and a database."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock(0)
        self.stored = Counting(database)
        self.shared = [SharedConcurrencyLimits(self.stored, clock=self.clock) for _ in range(2)]

    def slots(self, most: int) -> list[ConcurrencyLimit]:
        return [ConcurrencyLimit("key a", most, one) for one in self.shared]

    async def settle(self) -> None:
        for one in self.shared:
            await one.settle()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield Servers(database)


async def entered(slots: ConcurrencyLimit, number: int) -> int:
    """How many of so many get in at once."""
    asked = await asyncio.gather(*(slots.acquire() for _ in range(number)), return_exceptions=True)
    assert all(one is None or isinstance(one, RequestsLimited) for one in asked)
    return sum(one is None for one in asked)


async def test_one_that_is_alone_counts_for_itself():
    slots = ConcurrencyLimit("key a", 2)

    assert await entered(slots, 5) == 2
    slots.release()
    assert await entered(slots, 5) == 1


async def test_who_gets_not_all_of_them_gets_none():
    free, full = ConcurrencyLimit("key a", 1), ConcurrencyLimit("project a", 0)

    with pytest.raises(RequestsLimited, match="project a"):
        await acquire_all([free, full])
    assert free.running == 0
    await acquire_all([free])
    release_all([free])


@pytest.mark.parametrize("most", [1, 3, 50])
async def test_all_servers_together_run_no_more_than_one_would(servers, most):
    a, b = servers.slots(most)
    first = await entered(a, most - 1)

    assert most - most // BLOCKS <= first + await entered(b, most + 5) <= most


async def test_what_one_server_is_done_with_another_has(servers):
    a, b = servers.slots(1)
    await a.acquire()
    assert await entered(b, 1) == 0
    a.release()
    await servers.settle()
    servers.clock.now = 1.0

    assert await entered(b, 1) == 1


async def test_who_leaves_while_the_database_is_asked_takes_nothing(servers):
    a, b = servers.slots(1)
    asking = asyncio.create_task(a.acquire())
    while not servers.stored.asked:  # noqa: ASYNC110 # it has no event for that
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    await servers.settle()
    servers.clock.now = 1.0

    assert await entered(b, 1) == 1


async def test_of_many_a_few_are_kept_and_the_database_is_asked_seldom(servers):
    a, b = servers.slots(200)
    for _ in range(3):
        await entered(a, 50)
        for _ in range(50):
            a.release()
    await servers.settle()

    assert servers.stored.asked <= 15
    assert await entered(b, 200) >= 180


async def test_what_a_dead_server_held_is_there_when_its_lease_is_over(servers):
    a, b = servers.slots(2)
    await entered(a, 2)
    servers.clock.now = LEASE_S - 1.0
    assert await entered(b, 1) == 0
    servers.clock.now = LEASE_S + 1.0

    assert await entered(b, 3) == 2


async def test_who_lives_keeps_what_he_holds_until_he_leaves(servers):
    a, b = servers.slots(2)
    await entered(a, 2)
    servers.clock.now = LEASE_S - 1.0
    await servers.shared[0].renew()
    servers.clock.now = LEASE_S + 1.0
    assert await entered(b, 1) == 0
    await servers.shared[0].release_all()
    servers.clock.now += 1.0

    assert await entered(b, 1) == 1


async def test_without_the_database_each_counts_for_itself_and_leaves_it_alone(servers):
    a, b = servers.slots(2)
    servers.stored.is_down = True

    assert [await entered(a, 5), await entered(b, 5)] == [2, 2]
    assert servers.stored.asked == 2
    servers.stored.is_down = False
    for one in (a, a, b, b):
        one.release()
    servers.clock.now = DOWN_S
    assert [await entered(a, 5), await entered(b, 5)] == [2, 0]


async def test_what_could_not_be_given_back_is_given_back_later(servers):
    a, b = servers.slots(1)
    await a.acquire()
    servers.stored.is_down = True
    a.release()
    await servers.settle()
    servers.stored.is_down, servers.clock.now = False, DOWN_S
    await a.acquire()
    a.release()
    await servers.settle()

    assert await entered(b, 1) == 1


async def test_who_is_refused_again_and_again_does_not_ask_the_database_each_time(servers):
    a, b = servers.slots(1)
    await a.acquire()
    for _ in range(20):
        await entered(b, 1)

    assert servers.stored.asked == 2
