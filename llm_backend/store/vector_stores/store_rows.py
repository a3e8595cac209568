"""Vector stores as rows: SQL statements, each function part of a unit of work on a connection.

A store is missing from its deletion on, even while its rows are still there: they are deleted a
limited number in one transaction, so that other work does not wait for long. Deleted files go to a
store of their own, which is deleted from the beginning.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, func, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.durations import DAY_S
from llm_backend.store.errors import Expired
from llm_backend.store.jobs import NewJob, job_rows
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.vector_stores import (
    NOT_DELETED,
    vector_store_batches,
    vector_store_files,
    vector_stores,
)
from llm_backend.store.vector_stores import chunk_rows
from llm_backend.store.vector_stores.values import FileCounts, StoredVectorStore

INGEST, INGEST_LONG = "vector_file", "vector_file_long"
REMOVE_FILE, REMOVE_STORE = "vector_file_removal", "vector_store_removal"
"""Kinds of jobs: ingest a file, ingest a long file, remove a file's points, remove a store's
collection."""

ROWS_PER_TRANSACTION = 1000  # deleted chunks, files and batches
_EMPTIED_STORES_PER_TRANSACTION = 20
_KEYS = (vector_stores.c.created_at, vector_stores.c.seq)


def add(connection: Connection, store: StoredVectorStore) -> int:
    """Inserts an empty store; returns its `seq`."""
    days = store.expires_after_days
    expires_at = None if days is None else store.last_active_at + days * DAY_S
    row = row_from(
        store,
        vector_stores,
        metadata=dict(store.metadata),
        expires_at=expires_at,
        is_emptied=False,
    )
    statement = insert(vector_stores).returning(vector_stores.c.seq)
    seq: int = connection.execute(statement, row).scalar_one()
    return seq


def add_deleted(connection: Connection, now: float) -> tuple[str, int]:
    """Inserts a store that is marked as deleted, for files that are; returns its id and `seq`."""
    store = StoredVectorStore(
        id=f"vs_deleted_{uuid.uuid4().hex}",
        created_at=int(now),
        name="",
        last_active_at=int(now),
        embedding_model="",
    )
    seq = add(connection, store)
    this = update(vector_stores).where(vector_stores.c.seq == seq)
    connection.execute(this.values(deleted_at=int(now)))
    return store.id, seq


def row_of(connection: Connection, id: str, *, is_locked: bool = False) -> Row[Any]:
    """Returns the store's row, and locks it until the transaction ends if `is_locked`. Raises
    `Missing`."""
    query = select(vector_stores).where(vector_stores.c.id == id, NOT_DELETED)
    return find_row(connection, query.with_for_update(key_share=True) if is_locked else query, id)


def lock(connection: Connection, seqs: Select[tuple[int]]) -> None:
    """Locks these stores until the transaction ends."""
    query = select(vector_stores.c.seq).where(vector_stores.c.seq.in_(seqs))
    ordered = query.order_by(vector_stores.c.seq)
    connection.execute(ordered.with_for_update(key_share=True)).all()


def get(connection: Connection, id: str) -> StoredVectorStore:
    """Returns the store with this id, without counts of its files. Raises `Missing`."""
    return store_of(row_of(connection, id), FileCounts(), 0)


def get_with_counts(connection: Connection, id: str) -> StoredVectorStore:
    """Returns the store with this id, with counts of its files. Raises `Missing`."""
    row = row_of(connection, id)
    return _with_files(connection, [row])[0]


def find(connection: Connection, request: PageRequest) -> Page[Any]:
    """Returns a page of the stores. Raises `UnknownCursor`."""
    bound = cursor_keys(request, lambda id: _sort_keys(connection, id))
    listing = select(vector_stores).where(NOT_DELETED)
    rows, has_more = fetch(connection, listing, request, keys=_KEYS, bound=bound)
    return Page(items=_with_files(connection, rows), has_more=has_more)


def update_values(connection: Connection, id: str, values: Mapping[str, Any], now: int) -> None:
    """Replaces these values of the store, which counts as use. Raises `Missing`, and `Expired` for
    a new expiry of an expired store: its files are deleted, or will be soon."""
    row = row_of(connection, id, is_locked=True)
    if "expires_after_days" in values:
        check_unexpired(row, now)
    if values:
        change = update(vector_stores).where(vector_stores.c.seq == row.seq)
        connection.execute(change.values(**values))
    touch(connection, id, now)


def check_unexpired(row: Row[Any], now: float) -> None:
    """Raises `Expired` if the store of this row has expired."""
    if row.expires_at is not None and row.expires_at <= now:
        raise Expired(row.id)


def touch(connection: Connection, id: str, now: int) -> None:
    """Records that the store is used now, unless it has expired."""
    columns = vector_stores.c
    is_unexpired = columns.expires_at.is_(None) | (columns.expires_at > now)
    change = update(vector_stores).where(columns.id == id, is_unexpired)
    expires_at = now + columns.expires_after_days * DAY_S
    connection.execute(change.values(last_active_at=now, expires_at=expires_at))


def claim_index(connection: Connection, id: str, name: str) -> str:
    """Returns the name of the vector index that has this store's vectors; set to `name` if it had
    none. Raises `Missing`."""
    row = row_of(connection, id, is_locked=True)
    if row.index_name is not None:
        return str(row.index_name)
    change = update(vector_stores).where(vector_stores.c.seq == row.seq)
    connection.execute(change.values(index_name=name))
    return name


def set_dimensions(connection: Connection, id: str, dimensions: int) -> None:
    """Records that the store has a collection in the vector index, for vectors of this size."""
    change = update(vector_stores).where(vector_stores.c.id == id)
    connection.execute(change.values(dimensions=dimensions))


def delete(connection: Connection, id: str, now: float) -> None:
    """Marks the store as deleted; a job deletes its rows, and removes its collection. Raises
    `Missing`."""
    row = row_of(connection, id, is_locked=True)
    _stop_all_ingestions(connection, row.seq)
    change = update(vector_stores).where(vector_stores.c.seq == row.seq)
    connection.execute(change.values(deleted_at=int(now)))
    job_rows.add(
        connection, [NewJob(kind=REMOVE_STORE, subject=id, affinity=row.index_name)], now=now
    )


def delete_rows(connection: Connection, id: str | None = None) -> bool:
    """Deletes some rows of a store that is marked as deleted, its own the last: of this id, or of
    any. Returns True if more may be left."""
    deleted = select(vector_stores.c.seq).where(~NOT_DELETED)
    if id is not None:
        deleted = deleted.where(vector_stores.c.id == id)
    seq = connection.scalar(deleted.limit(1).with_for_update(key_share=True))
    if seq is None:
        return False
    if _delete_parts(connection, seq, vector_store_files, vector_store_batches):
        return True
    connection.execute(delete_from(vector_stores).where(vector_stores.c.seq == seq))
    return id is None


def empty_expired(connection: Connection, now: int) -> bool:
    """Empties some of the expired stores, or deletes some of the rows of one; returns True if more
    may be left."""
    due = select(vector_stores).where(
        vector_stores.c.expires_at <= now, vector_stores.c.is_emptied.is_(False), NOT_DELETED
    )
    locked = due.limit(_EMPTIED_STORES_PER_TRANSACTION).with_for_update(skip_locked=True)
    rows = connection.execute(locked).all()
    for row in rows:
        _stop_all_ingestions(connection, row.seq)
        if _delete_parts(connection, row.seq, vector_store_files):
            return True
        change = update(vector_stores).where(vector_stores.c.seq == row.seq)
        connection.execute(change.values(is_emptied=True, dimensions=None))
        removal = NewJob(kind=REMOVE_STORE, subject=row.id, affinity=row.index_name)
        job_rows.add(connection, [removal], now=now)
    return len(rows) == _EMPTIED_STORES_PER_TRANSACTION


def delete_emptied(connection: Connection, before: int, *, limit: int) -> int:
    """Deletes some of the emptied stores that expired before this time; returns their number."""
    has_expired = vector_stores.c.is_emptied & (vector_stores.c.expires_at <= before) & NOT_DELETED
    oldest = (
        select(vector_stores.c.seq).where(has_expired).order_by(vector_stores.c.seq).limit(limit)
    )
    seqs = connection.scalars(oldest.with_for_update(skip_locked=True)).all()
    connection.execute(delete_from(vector_stores).where(vector_stores.c.seq.in_(seqs)))
    return len(seqs)


def store_of(row: Row[Any], files: FileCounts, usage_bytes: int) -> StoredVectorStore:
    """Returns the value of a row."""
    return value_from(row, StoredVectorStore, files=files, usage_bytes=usage_bytes)


def counts_of(connection: Connection, column: Any, seqs: Collection[int]) -> dict[int, Any]:
    """Returns counts of the files and their bytes, by the number of a store or batch in
    `column`."""
    files = vector_store_files.c
    counted = select(column, files.status, func.count(), func.sum(files.usage_bytes))
    counts: dict[int, dict[str, int]] = {seq: {} for seq in seqs}
    usage_bytes = dict.fromkeys(seqs, 0)
    rows = connection.execute(counted.where(column.in_(seqs)).group_by(column, files.status))
    for seq, status, number, size_bytes in rows:
        counts[seq][status] = number
        usage_bytes[seq] += int(size_bytes)
    return {seq: (FileCounts(**counts[seq]), usage_bytes[seq]) for seq in seqs}


def _with_files(connection: Connection, rows: Iterable[Row[Any]]) -> list[StoredVectorStore]:
    rows = list(rows)
    counts = counts_of(connection, vector_store_files.c.store_seq, [row.seq for row in rows])
    return [store_of(row, *counts[row.seq]) for row in rows]


def stop_ingestions(
    connection: Connection, documents: Collection[str] | Select[tuple[str]]
) -> None:
    """Cancels the ingestion of these files, as short or as long ones."""
    job_rows.remove_all(connection, (INGEST, INGEST_LONG), documents)


def _stop_all_ingestions(connection: Connection, seq: int) -> None:
    """Cancels the ingestion of all files of the store."""
    files = vector_store_files.c
    begun = select(files.id).where(files.store_seq == seq, files.status == "in_progress")
    stop_ingestions(connection, begun)


def _delete_parts(connection: Connection, seq: int, *tables: Table) -> bool:
    """Deletes some chunks of the store's files, and then some rows of the tables; returns True if
    more may be left."""
    of_store = select(vector_store_files.c.seq).where(vector_store_files.c.store_seq == seq)
    left = ROWS_PER_TRANSACTION - chunk_rows.delete_some(connection, of_store, ROWS_PER_TRANSACTION)
    for table in tables:
        if left:
            some = select(table.c.seq).where(table.c.store_seq == seq).limit(left)
            left -= connection.execute(delete_from(table).where(table.c.seq.in_(some))).rowcount
    return left == 0


def _sort_keys(connection: Connection, id: str) -> tuple[int, int]:
    row = row_of(connection, id)
    return row.created_at, row.seq
