"""Batches of files of a vector store as rows: each function part of a unit of work."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from llm_backend.store.row_values import find_row
from llm_backend.store.tables.vector_stores import vector_store_batches, vector_store_files
from llm_backend.store.vector_stores import file_rows
from llm_backend.store.vector_stores.store_rows import counts_of, row_of
from llm_backend.store.vector_stores.values import NewVectorFile, StoredFileBatch

_BATCHES = vector_store_batches.c


def add(
    connection: Connection,
    store_id: str,
    batch_id: str,
    files: Sequence[NewVectorFile],
    *,
    now: float,
    lease_s: float,
) -> None:
    """Inserts a batch and its files. Raises `Missing` for the store, and `Expired`."""
    store = row_of(connection, store_id, is_locked=True)
    row = {
        "id": batch_id,
        "created_at": int(now),
        "owner": store.owner,
        "store_seq": store.seq,
        "is_cancelled": False,
    }
    statement = insert(vector_store_batches).returning(_BATCHES.seq)
    seq = connection.execute(statement, row).scalar_one()
    file_rows.add(connection, store_id, files, now=now, lease_s=lease_s, batch_seq=seq)


def get(connection: Connection, store_id: str, batch_id: str) -> StoredFileBatch:
    """A batch of the store. Raises `Missing` for the store, or for the batch."""
    row = _row_of(connection, store_id, batch_id)
    counts, _ = counts_of(connection, vector_store_files.c.batch_seq, [row.seq])[row.seq]
    return StoredFileBatch(
        id=row.id,
        created_at=row.created_at,
        store_id=store_id,
        is_cancelled=row.is_cancelled,
        files=counts,
    )


def seq_of(connection: Connection, store_id: str, batch_id: str) -> int:
    """The number by which the files of a batch are found. Raises `Missing`."""
    seq: int = _row_of(connection, store_id, batch_id).seq
    return seq


def cancel(
    connection: Connection, store_id: str, batch_id: str, *, now: float, lease_s: float
) -> StoredFileBatch:
    """Cancels the ingestion of the batch's files that are not ingested yet. A batch whose files are
    all ingested, or failed, does not change. Raises `Missing`."""
    seq = seq_of(connection, store_id, batch_id)
    if file_rows.stop(connection, store_id, seq, now, lease_s=lease_s):
        this = update(vector_store_batches).where(_BATCHES.seq == seq)
        connection.execute(this.values(is_cancelled=True))
    return get(connection, store_id, batch_id)


def _row_of(connection: Connection, store_id: str, batch_id: str) -> Row[Any]:
    store = row_of(connection, store_id)
    this = select(vector_store_batches).where(
        _BATCHES.id == batch_id, _BATCHES.store_seq == store.seq
    )
    return find_row(connection, this, batch_id)
