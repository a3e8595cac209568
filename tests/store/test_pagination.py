"""Pagination returns every chat exactly once, in order, also with concurrent changes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from sqlalchemy import event

from llm_backend.store import ChatStore, Database, StoredChat, migrate
from tests.examples import examples
from tests.store.chat_values import a_chat
from tests.store.conftest import empty

few_examples = settings(
    max_examples=examples(20),
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example empties it
)
times = some.lists(some.integers(1, 4), max_size=12)
limits = some.lists(some.integers(1, 5), min_size=1, max_size=6)
orders = some.sampled_from(["asc", "desc"])


async def stored(chats, at: list[int], **changes) -> list[StoredChat]:
    made = [a_chat(created_at=time, **changes) for time in at]
    for chat in made:
        await chats.add(chat, [])
    return made


async def pages(chats, limits: list[int], **filters) -> AsyncIterator[list[StoredChat]]:
    after, number = None, 0
    while True:
        limit = limits[number % len(limits)]
        page = await chats.list(after=after, limit=limit, **filters)
        assert len(page.items) <= limit
        yield list(page.items)
        if not page.has_more:
            return
        after, number = page.last_id, number + 1


def in_order(made: list[StoredChat], order: str) -> list[StoredChat]:
    oldest_first = sorted(made, key=lambda chat: chat.created_at)  # stable: then as stored
    return oldest_first if order == "asc" else oldest_first[::-1]


@few_examples
@given(times=times, limits=limits, order=orders)
async def test_pagination_returns_every_chat_once_and_in_order(
    database, chats, times, limits, order
):
    await database.write(empty)
    made = await stored(chats, times)

    seen = [chat async for page in pages(chats, limits, order=order) for chat in page]

    assert seen == in_order(made, order)


@few_examples
@given(times=times, later=times, limits=limits, order=orders)
async def test_chats_stored_meanwhile_do_not_disturb_pagination(
    database, chats, times, later, limits, order
):
    await database.write(empty)
    made, later, seen = await stored(chats, times), list(later), []

    async for page in pages(chats, limits, order=order):
        seen += page
        await stored(chats, [later.pop()] if later else [])

    assert [chat for chat in seen if chat in made] == in_order(made, order)
    assert len({chat.id for chat in seen}) == len(seen)


@few_examples
@given(times=times, limits=limits, order=orders)
async def test_filtered_pages_contain_exactly_the_matches(database, chats, times, limits, order):
    await database.write(empty)
    wanted: list[StoredChat] = []
    for time in times:
        wanted += await stored(chats, [time], model="large", metadata={"a": "1", "b": "2"})
        await stored(chats, [time], model="large", metadata={"a": "1"})
        await stored(chats, [time], model="small", metadata={"a": "1", "b": "2"})

    filters = {"model": "large", "metadata": {"a": "1", "b": "2"}, "order": order}
    seen = [chat async for page in pages(chats, limits, **filters) for chat in page]

    assert seen == in_order(wanted, order)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize(
    "filters", [{}, {"model": "small"}, {"metadata": {"a": "1"}}], ids=["all", "model", "metadata"]
)
async def test_page_is_an_index_search_and_not_a_sort(sqlite_url, filters, order):
    statements: list[tuple[str, Any]] = []
    async with Database.open(sqlite_url) as database:
        await migrate(database)
        chats = ChatStore(database)
        middle = (await stored(chats, [1, 2, 3]))[1]
        await database.read(
            lambda connection: event.listen(
                connection.engine,
                "before_cursor_execute",
                lambda _c, _cursor, sql, values, *_: statements.append((sql, values)),
            )
        )
        await chats.list(**filters, order=order, after=middle.id)
        sql, values = next((sql, values) for sql, values in statements if "ORDER BY" in sql)
        explained = await database.read(
            lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
        )
    plan = [step.detail for step in explained]

    assert "USING INDEX ix_" in plan[0] or "USING COVERING INDEX ix_" in plan[0]
    assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")]
