"""Ledger: usage added up in memory and written in the background."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_backend.access import Ledger
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import StoredUsage, Tokens, UsageFilter, UsageKey

ALL = UsageFilter(start_at=0, end_at=1 << 40, kinds=["completions"], allowed_values={})
TOKENS = Tokens(*range(1, 1 + len(Tokens._fields)))  # each amount another


class Failing(StoredUsage):
    """A database that may be down."""

    is_down = False

    async def add(self, amounts) -> None:
        if self.is_down:
            raise StoreUnavailable("The database is down.")
        await super().add(amounts)


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[Failing]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield Failing(database)


def key(minute: int = 0, project: str = "proj_a") -> UsageKey:
    return UsageKey(minute * 60, "completions", project, "key", "", "m", "default", False, "")


async def test_usage_of_several_servers_is_summed_in_the_database(stored):
    for _ in range(2):
        ledger = Ledger(stored)
        for _ in range(3):
            ledger.add(key(), requests=1, units=3, tokens=TOKENS)
        await ledger.write()

    (told,) = await stored.sums(ALL, width_s=60)
    assert (told.requests, told.units) == (6, 18)
    assert told.tokens == Tokens(*(6 * count for count in TOKENS))


async def test_usage_is_stored_after_a_write_that_began_during_another(stored):
    ledger = Ledger(stored)
    ledger.add(key(), requests=1)
    other = asyncio.create_task(ledger.write())
    await asyncio.sleep(0)  # it has taken the sums, and stores them

    await ledger.write()

    assert other.done()


async def test_failed_write_is_retried_later(stored, caplog):
    ledger = Ledger(stored)
    ledger.add(key(), requests=1, tokens=TOKENS)
    stored.is_down = True
    await ledger.write_or_log()
    ledger.add(key(), requests=1)
    stored.is_down = False
    await ledger.write()

    (told,) = await stored.sums(ALL, width_s=60)
    assert (told.requests, told.tokens) == (2, TOKENS)
    assert "usage_not_written" in caplog.text


async def test_entries_are_bounded_during_an_outage(stored, caplog):
    ledger = Ledger(stored, entries_limit=2)
    for minute in range(5):
        ledger.add(key(minute), requests=1)
    ledger.add(key(0), requests=1)
    await ledger.write()

    told = await stored.sums(ALL, width_s=60)
    assert [(one.bucket_at, one.requests) for one in told] == [(0, 2), (60, 1)]
    assert caplog.text.count("usage_lost") == 1


async def test_buckets_are_of_any_width_and_groups_of_any_column(stored):
    ledger = Ledger(stored)
    for minute, project in [(0, "proj_a"), (59, "proj_a"), (60, "proj_a"), (60, "proj_b")]:
        ledger.add(key(minute, project), requests=1)
    await ledger.write()

    told = await stored.sums(ALL, width_s=3600, group_by=["project_id"])
    assert [(one.bucket_at, one.group["project_id"], one.requests) for one in told] == [
        (0, "proj_a", 2), (3600, "proj_a", 1), (3600, "proj_b", 1),
    ]  # fmt: skip


async def test_unstorable_entry_does_not_block_others(stored, caplog):
    ledger = Ledger(stored)
    ledger.add(key(0), requests=1)
    ledger.add(key(1), requests=1, tokens=Tokens(input_tokens=10**30))
    ledger.add(key(2), requests=1)
    await ledger.write()

    told = await stored.sums(ALL, width_s=60)
    assert [one.bucket_at for one in told] == [0, 120]
    assert caplog.text.count("usage_lost") == 1
