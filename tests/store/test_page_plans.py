"""Pages of one owner's objects are read by an index, without the rows of other owners."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from llm_backend.store import (
    BatchStore,
    Blobs,
    Bucket,
    ChatStore,
    Database,
    DeliveryLimit,
    FileStore,
    Jobs,
    VectorStores,
    migrate,
)
from llm_backend.store.database.ownership import Owner, as_owner

List = Callable[[Database, Path], Awaitable[object]]


def list_batches(database: Database, _: Path) -> Awaitable[object]:
    store = BatchStore(database, Jobs(database), deliveries=DeliveryLimit(waiting=1))
    return store.list(limit=20)


def list_chats(database: Database, _: Path) -> Awaitable[object]:
    return ChatStore(database).list(limit=20)


def list_files(database: Database, folder: Path) -> Awaitable[object]:
    blobs = Blobs(database, Bucket(folder.as_uri()))
    return FileStore(database, blobs).list(limit=20, order="desc")


def list_vector_stores(database: Database, _: Path) -> Awaitable[object]:
    stores = VectorStores(database, Jobs(database))
    return stores.list(after=None, before=None, limit=20, order="desc")


async def plan_of_page(url: str, owner: Owner, list_page: List, folder: Path) -> list[str]:
    statements: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, sql: str, values: Any, *_: object) -> None:
        statements.append((sql, values))

    async with Database.open(url) as database:
        await migrate(database)
        await database.read(
            lambda connection: event.listen(connection.engine, "before_cursor_execute", note)
        )
        with as_owner(owner):
            await list_page(database, folder)
        sql, values = next((sql, values) for sql, values in statements if "ORDER BY" in sql)
        steps = await database.read(
            lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
        )
    return [step.detail for step in steps]


@pytest.mark.parametrize("owner", [Owner(id="proj_1"), Owner.default_project()])
@pytest.mark.parametrize("list_page", [list_batches, list_chats, list_files, list_vector_stores])
async def test_page_of_an_owner_is_an_index_search_and_not_a_scan(
    sqlite_url: str, tmp_path: Path, owner: Owner, list_page: List
) -> None:
    (step,) = await plan_of_page(sqlite_url, owner, list_page, tmp_path)

    assert step.startswith("SEARCH")
    assert step.endswith("_owner_created_at_seq (owner=?)")
