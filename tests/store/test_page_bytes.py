"""A page of any list ends early where its rows are long, and the rows behind it are not read."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import event, text

from llm_backend.store import (
    ChatSearch,
    ChatStore,
    ConversationStore,
    Database,
    Jobs,
    NewVectorFile,
    Page,
    ResponseStore,
    StoredConversation,
    StoredItem,
    StoredResponse,
    StoredVectorStore,
    VectorStores,
    migrate,
)
from llm_backend.store.administration import Administration, AuditedChange, AuditFilter, Record
from llm_backend.store.database.ownership import Owner, as_owner
from llm_backend.store.keyset_pages import PageRequest
from llm_backend.store.vector_stores import StoredChunking
from tests.store.chat_values import a_chat
from tests.store.conftest import empty

LIMIT_BYTES = 4000
LONG = "x" * 900  # four rows of it are within the limit, and five are not
NAMES = [f"name_{number}" for number in range(7)]

Pages = Callable[[str | None], Awaitable[Page[Any]]]


@pytest.fixture
async def database(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    url = request.getfixturevalue(f"{kind}_url")
    async with Database.open(url, page_limit_bytes=LIMIT_BYTES) as database:
        await migrate(database)
        await database.write(empty)
        yield database


def long_chat(id: str, characters: int = len(LONG)) -> Any:
    return a_chat(id=id, request={"user": "x" * characters}, metadata={"list": "this"})


async def every_page(pages: Pages) -> list[list[str]]:
    """The ids of all items, page by page."""
    seen: list[list[str]] = []
    after = None
    while True:
        page = await pages(after)
        seen.append([item.id for item in page.items])
        if not page.has_more:
            return seen
        after = page.last_id


async def chats(database: Database) -> Pages:
    store = ChatStore(database)
    for name in NAMES:
        await store.add(long_chat(name), [])
    return lambda after: store.list(after=after, limit=100, metadata={"list": "this"})


async def messages(database: Database) -> Pages:
    store = ChatStore(database)
    await store.add(a_chat(id="one"), [{"role": "user", "content": LONG} for _ in NAMES])
    return lambda after: store.messages("one", after=after, limit=100)


def long_items() -> list[StoredItem]:
    return [StoredItem(id=name, item={"type": "message", "content": LONG}) for name in NAMES]


async def conversation_items(database: Database) -> Pages:
    store = ConversationStore(database)
    await store.add(StoredConversation(id="one", created_at=1, metadata={}), long_items())
    return lambda after: store.items("one", after=after, limit=100)


async def input_items(database: Database) -> Pages:
    store = ResponseStore(database)
    response = StoredResponse(
        id="one", created_at=1, model="m", status="completed", body={}, input=long_items(),
        output=[],
    )  # fmt: skip
    await store.add(response)
    return lambda after: store.input("one", after=after, limit=100)


def vector_store(id: str, name: str) -> StoredVectorStore:
    return StoredVectorStore(id=id, created_at=1, name=name, last_active_at=1, embedding_model="m")


async def vector_stores(database: Database) -> Pages:
    stores = VectorStores(database, Jobs(database, lease_s=60))
    for name in NAMES:
        await stores.add(vector_store(name, LONG), [])
    return lambda after: stores.list(after=after, before=None, limit=100, order="asc")


async def files_of_a_vector_store(database: Database) -> Pages:
    stores = VectorStores(database, Jobs(database, lease_s=60))
    chunking = StoredChunking(max_tokens=800, overlap_tokens=400)
    files = [
        NewVectorFile(document=name, file_id=name, filename=LONG, chunking=chunking)
        for name in NAMES
    ]
    await stores.add(vector_store("one", "one"), files)
    return lambda after: stores.files(
        "one", after=after, before=None, limit=100, order="asc", status=None
    )


async def records(database: Database) -> Pages:
    store = Administration(database)
    change = AuditedChange(type="project.created", resource_id="x", body={"data": LONG})
    for name in NAMES:
        record = Record(id=name, kind="project", created_at=1, body={"name": LONG})
        await store.add(change, record)
    return lambda after: store.find("project", PageRequest(after=after, limit=100))


async def audit_entries(database: Database) -> Pages:
    await records(database)
    store = Administration(database)
    return lambda after: store.audit_entries(AuditFilter(), PageRequest(after=after, limit=100))


LISTS: Sequence[Callable[[Database], Awaitable[Pages]]] = (
    chats, messages, conversation_items, input_items, vector_stores, files_of_a_vector_store,
    records, audit_entries,
)  # fmt: skip


@pytest.mark.parametrize("fill", LISTS)
async def test_pages_of_long_rows_end_early_and_together_hold_all(database, fill):
    seen = await every_page(await fill(database))

    ids = [id for page in seen for id in page]
    assert len(set(ids)) == len(ids) == len(NAMES)
    assert max(len(page) for page in seen) in (2, 3, 4)
    assert min(len(page) for page in seen) > 0


async def test_page_has_a_row_that_is_longer_than_a_page(database):
    store = ChatStore(database)
    for id, characters in (("a", 10), ("b", 9000), ("c", 9000), ("d", 10), ("e", 10)):
        await store.add(long_chat(id, characters), [])

    for order, pages in (("asc", ["a", "b", "c", "de"]), ("desc", ["ed", "c", "b", "a"])):
        seen = await every_page(lambda after, order=order: store.list(after=after, order=order))
        assert ["".join(page) for page in seen] == pages


async def test_page_before_an_item_ends_early_at_its_beginning(database):
    stores = VectorStores(database, Jobs(database, lease_s=60))
    await vector_stores(database)

    page = await stores.list(after=None, before=NAMES[6], limit=100, order="asc")

    assert page.has_more
    assert [item.id for item in page.items] == NAMES[6 - len(page.items) : 6]


async def test_bounded_page_has_only_rows_of_its_owner(database):
    store = ChatStore(database)
    mine, theirs = Owner(id="proj_1"), Owner(id="proj_2")
    for name in NAMES:
        for owner in (mine, theirs):
            with as_owner(owner):
                await store.add(long_chat(f"{name}-{owner.id}"), [])

    with as_owner(mine):
        seen = await every_page(lambda after: store.list(after=after, limit=100))

    assert [id for page in seen for id in page] == [f"{name}-proj_1" for name in NAMES]


async def test_sqlite_reads_no_row_behind_a_page(sqlite_url):
    async with Database.open(sqlite_url, page_limit_bytes=LIMIT_BYTES) as database:
        await migrate(database)
        pages = await chats(database)
        unreadable = text("UPDATE chats SET request = 'no JSON' WHERE id = 'name_6'")
        await database.write(lambda connection: connection.execute(unreadable) and None)

        page = await pages(None)

    assert page.has_more


@pytest.mark.parametrize("kind", ["postgresql"])
async def test_postgresql_sends_at_most_one_row_behind_a_page(database):
    statements: list[tuple[str, Any]] = []
    pages = await chats(database)
    await database.read(
        lambda connection: event.listen(
            connection.engine,
            "after_cursor_execute",
            lambda _c, _cursor, sql, values, *_: statements.append((sql, values)),
        )
    )

    page = await pages(None)
    sql, values = next((sql, values) for sql, values in statements if "ORDER BY" in sql)
    sent = await database.read(
        lambda connection: connection.exec_driver_sql(sql, tuple(values)).all()
    )

    assert len(sent) == len(page.items) + 1


async def test_page_of_found_chats_ends_early(database):
    store = ChatStore(database)
    search = ChatSearch(database, limit_characters=1000)
    for name in NAMES:
        await store.add(a_chat(id=name), [{"role": "user", "content": f"keyset {LONG}"}])

    pages = await every_page(lambda after: search.find("keyset", after=after, limit=100))

    assert [id for page in pages for id in page] == NAMES[::-1]
    assert 1 < len(pages[0]) < len(NAMES)


async def test_found_chat_longer_than_a_page_is_a_page(database):
    await ChatStore(database).add(
        a_chat(id="long"), [{"role": "user", "content": "keyset " * LIMIT_BYTES}]
    )

    page = await ChatSearch(database, limit_characters=1000).find("keyset")

    assert [found.id for found in page.items] == ["long"]
