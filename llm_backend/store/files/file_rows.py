"""Stored files as rows: SQL statements, each function one unit of work on a connection.

A file is missing from the second of its expiry on, even while its row is still there.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, exists, func, insert, select
from sqlalchemy import delete as delete_from

from llm_backend.store.errors import FileInUse, Missing
from llm_backend.store.files import file_byte_total
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.objects import orphans
from llm_backend.store.objects.blob import Content, from_json, to_json
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.batches import BATCH_ENDS, batches
from llm_backend.store.tables.files import files
from llm_backend.store.tables.vector_stores import vector_store_files
from llm_backend.store.text_checks import is_text
from llm_backend.store.vector_stores.file_rows import forget_files

_EXPIRED_FILES_PER_TRANSACTION = 100


def add(connection: Connection, file: StoredFile, limit_bytes: int | None = None) -> None:
    """Inserts the file, and claims its blobs. Raises `BlobGone`, and `FilesFull` if files,
    uploads and voices then exceed `limit_bytes`."""
    orphans.claim(connection, file.content)
    insert_file(connection, file)
    file_byte_total.add(connection, file.size_bytes, limit_bytes)


def insert_file(connection: Connection, file: StoredFile) -> None:
    """Inserts a file whose blobs are claimed and counted already."""
    row = row_from(file, files, content=to_json(file.content))
    connection.execute(insert(files), row)


def get(connection: Connection, id: str, now: int) -> StoredFile:
    """Returns the file with this id. Raises `Missing`."""
    return _file(_row(connection, id, now))


def lock(connection: Connection, id: str, now: int) -> None:
    """Locks the file against deletion until the transaction ends. Raises `Missing`."""
    _row(connection, id, now, is_locked=True)


def content(connection: Connection, id: str) -> Content:
    """Returns the content of a file, expired or not. Raises `Missing`."""
    found = connection.scalar(select(files.c.content).where(files.c.id == id))
    if found is None:
        raise Missing(id)
    return from_json(found)


def find(
    connection: Connection, request: PageRequest, purpose: str | None, now: int
) -> Page[StoredFile]:
    """Returns a page of the files with this `purpose`. Raises `UnknownCursor`."""
    bound = cursor_keys(request, lambda id: _sort_keys(connection, id, now))
    if not is_text(purpose or ""):
        return Page(items=(), has_more=False)
    listing = select(files).where(_is_unexpired(now))
    if purpose is not None:
        listing = listing.where(files.c.purpose == purpose)
    keys = (files.c.created_at, files.c.seq)
    rows, has_more = fetch(connection, listing, request, keys=keys, bound=bound)
    return Page(items=[_file(row) for row in rows], has_more=has_more)


def delete(connection: Connection, id: str, now: int, *, lease_s: float) -> Sequence[str]:
    """Deletes the file, also from vector stores; returns the keys of its blobs, which are to be
    removed. `lease_s` is the length of the leases of jobs.

    Raises `Missing`, `FileInUse`.
    """
    row = _row(connection, id, now, is_locked=True)
    reader = connection.scalar(select(batches.c.id).where(_reads(id)).limit(1))
    if reader is not None:
        raise FileInUse(id, reader)
    forget_files(connection, [row.id], now, lease_s=lease_s)
    return _delete(connection, [row])


def expire(connection: Connection, now: int, *, lease_s: float) -> bool:
    """Deletes some expired files, also from vector stores; returns True if more may be left."""
    is_read = select(batches.c.id).where(_reads(files.c.id)).exists()
    expired = select(files).where(files.c.expires_at <= now, ~is_read).order_by(files.c.expires_at)
    oldest = expired.limit(_EXPIRED_FILES_PER_TRANSACTION).with_for_update(skip_locked=True)
    rows = connection.execute(oldest).all()
    forget_files(connection, [row.id for row in rows], now, lease_s=lease_s)
    _delete(connection, rows)
    return len(rows) == _EXPIRED_FILES_PER_TRANSACTION


def delete_old(connection: Connection, before: int, *, limit: int) -> int:
    """Deletes up to `limit` files from before this time that no batch and no vector store uses;
    returns their number."""
    is_read = select(batches.c.id).where(_reads(files.c.id)).exists()
    is_searched = exists().where(vector_store_files.c.file_id == files.c.id)
    unused = select(files).where(files.c.created_at <= before, ~is_read, ~is_searched)
    oldest = unused.order_by(files.c.created_at, files.c.seq).limit(limit)
    rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
    if rows:
        _delete(connection, rows)
    return len(rows)


def _delete(connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[str]:
    connection.execute(delete_from(files).where(files.c.seq.in_([row.seq for row in rows])))
    keys = orphans.discard(connection, [blob for row in rows for blob in from_json(row.content)])
    file_byte_total.subtract(connection, sum(row.size_bytes for row in rows))
    return keys


def _row(connection: Connection, id: str, now: int, *, is_locked: bool = False) -> Row[Any]:
    query = select(files).where(files.c.id == id, _is_unexpired(now))
    return find_row(connection, query.with_for_update() if is_locked else query, id)


def _sort_keys(connection: Connection, id: str, now: int) -> tuple[int, int]:
    row = _row(connection, id, now)
    return row.created_at, row.seq


def _reads(id: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Returns the condition of batches that have not ended and whose input is this file."""
    return (batches.c.input_file_id == id) & batches.c.status.not_in(BATCH_ENDS)


def _is_unexpired(now: int) -> ColumnElement[bool]:
    # Not by `expires_at` alone: SQLite would find all files by its index, and sort them for a page.
    return func.coalesce(files.c.expires_at, now + 1) > now


def _file(row: Row[Any]) -> StoredFile:
    return value_from(row, StoredFile, content=from_json(row.content))
