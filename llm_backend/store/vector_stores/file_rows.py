"""Files in vector stores as rows: SQL statements, each function part of a unit of work.

A change of more than one file locks the stores of these files. `lease_s` is the length of the
leases of jobs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, insert, select, update

from llm_backend.store.errors import AttributesChanged, LeaseLost, Missing
from llm_backend.store.jobs import Job, NewJob, job_rows
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import find_row
from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.vector_stores import (
    NOT_DELETED,
    vector_store_files,
    vector_stores,
)
from llm_backend.store.vector_stores import chunk_rows, store_rows
from llm_backend.store.vector_stores.store_rows import (
    INGEST,
    REMOVE_FILE,
    check_unexpired,
    row_of,
    stop_ingestions,
    touch,
)
from llm_backend.store.vector_stores.values import (
    Attribute,
    FileError,
    NewVectorFile,
    StoredChunk,
    StoredChunking,
    StoredVectorFile,
)

_REMOVAL_DELAY_LEASES = 2  # lengths of a lease: a stopped ingestion may write until its lease ends
_FILES = vector_store_files.c
_KEYS = (_FILES.created_at, _FILES.seq)


def add(
    connection: Connection,
    store_id: str,
    files: Sequence[NewVectorFile],
    *,
    now: float,
    lease_s: float,
    batch_seq: int | None = None,
) -> None:
    """Inserts files, each with the job of its ingestion. A file that the store contains already is
    ingested again. Raises `Missing` for the store, and `Expired`."""
    store = row_of(connection, store_id, is_locked=True)
    check_unexpired(store, now)
    for part in statement_parts(files):
        present = select(_FILES.id).where(
            _FILES.store_seq == store.seq, _FILES.file_id.in_([file.file_id for file in part])
        )
        _remove(connection, _location(store), connection.scalars(present).all(), now, lease_s)
        rows = [_row(file, store.seq, batch_seq, int(now)) for file in part]
        connection.execute(insert(vector_store_files), rows)
    jobs = [
        NewJob(
            kind=INGEST,
            subject=file.document,
            details={"asked_by": dict(file.requested_by)},  # the key in jobs of earlier versions
            affinity=store.index_name,
        )
        for file in files
    ]
    job_rows.add(connection, jobs, now=now)
    touch(connection, store_id, int(now))


def get(connection: Connection, store_id: str, file_id: str) -> StoredVectorFile:
    """A file of the store. Raises `Missing` for the store, or for the file."""
    row_of(connection, store_id)
    return _file(_find_row(connection, store_id, file_id))


def by_document(connection: Connection, document: str) -> StoredVectorFile:
    """The file whose points in the index have the id `document`. Raises `Missing`."""
    row = connection.execute(_joined_select().where(_FILES.id == document)).first()
    if row is None:
        raise Missing(document)
    return _file(row)


def find(
    connection: Connection,
    store_id: str,
    request: PageRequest,
    *,
    status: str | None,
    batch_seq: int | None = None,
) -> Page[StoredVectorFile]:
    """A page of the files of the store, or of a batch. Raises `Missing`, `UnknownCursor`."""
    listing = _joined_select().where(_FILES.store_seq == row_of(connection, store_id).seq)
    if batch_seq is not None:
        listing = listing.where(_FILES.batch_seq == batch_seq)
    if status is not None:
        listing = listing.where(_FILES.status == status)
    bound = cursor_keys(request, lambda file_id: _sort_keys(connection, store_id, file_id))
    rows, has_more = fetch(connection, listing, request, keys=_KEYS, bound=bound)
    return Page(items=[_file(row) for row in rows], has_more=has_more)


def set_attributes(
    connection: Connection, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
) -> StoredVectorFile:
    """Replaces the attributes of the file. Raises `Missing`."""
    row = _find_row(connection, store_id, file_id)
    this = update(vector_store_files).where(_FILES.seq == row.seq)
    connection.execute(this.values(attributes=dict(attributes)))
    return get(connection, store_id, file_id)


def delete(
    connection: Connection, store_id: str, file_id: str, now: float, *, lease_s: float
) -> None:
    """Removes a file from the store. Raises `Missing`."""
    store = row_of(connection, store_id, is_locked=True)
    row = _find_row(connection, store_id, file_id)
    _remove(connection, _location(store), [row.id], now, lease_s)
    touch(connection, store_id, int(now))


def forget_files(
    connection: Connection, file_ids: Iterable[str], now: float, *, lease_s: float
) -> None:
    """Removes deleted files from all stores."""
    these = _FILES.file_id.in_(list(file_ids))
    store_rows.lock(connection, select(_FILES.store_seq).where(these))
    documents: dict[_IndexLocation, list[str]] = {}
    for row in connection.execute(_joined_select().where(these).order_by(_FILES.seq)):
        location = _IndexLocation(store_id=row.store_id, index_name=row.index_name)
        documents.setdefault(location, []).append(row.id)
    for location, ids in documents.items():
        _remove(connection, location, ids, now, lease_s)


def complete(
    connection: Connection,
    job: Job,
    chunks: Sequence[StoredChunk],
    usage_bytes: int,
    attributes: Mapping[str, Attribute],
) -> None:
    """Finishes the ingestion of the file with these `attributes`, and the job. Raises `LeaseLost`,
    and `AttributesChanged` if they were replaced meanwhile."""
    job_rows.finish(connection, job)
    this_row = select(vector_store_files).where(_FILES.id == job.subject).with_for_update()
    row = connection.execute(this_row).first()
    if row is None:
        raise LeaseLost(job.subject)
    if row.attributes != attributes:
        raise AttributesChanged(row.attributes)
    chunk_rows.put(connection, row.seq, chunks)
    this = update(vector_store_files).where(_FILES.seq == row.seq)
    connection.execute(this.values(status="completed", usage_bytes=usage_bytes))


def fail(connection: Connection, job: Job, error: FileError, now: float, *, lease_s: float) -> None:
    """Fails the ingestion of the file, and finishes the job. Raises `LeaseLost`."""
    job_rows.finish(connection, job)
    this = update(vector_store_files).where(_FILES.id == job.subject)
    connection.execute(this.values(status="failed", error=asdict(error)))
    row = connection.execute(_joined_select().where(_FILES.id == job.subject)).first()
    if row is not None:
        location = _IndexLocation(store_id=row.store_id, index_name=row.index_name)
        _remove_points_later(
            connection, location, [row.id], now, delay_s=_REMOVAL_DELAY_LEASES * lease_s
        )


def text_of(connection: Connection, store_id: str, file_id: str) -> str:
    """The text of the file; empty before its ingestion. Raises `Missing`."""
    row_of(connection, store_id)
    return chunk_rows.text_of(connection, _find_row(connection, store_id, file_id).seq)


def stop(
    connection: Connection, store_id: str, batch_seq: int, now: float, *, lease_s: float
) -> int:
    """Cancels the ingestion of the batch's files that are not ingested yet; returns their
    number."""
    location = _location(row_of(connection, store_id, is_locked=True))
    in_progress = (_FILES.batch_seq == batch_seq) & (_FILES.status == "in_progress")
    documents = sorted(connection.scalars(select(_FILES.id).where(in_progress)))
    stop_ingestions(connection, documents)
    _remove_points_later(
        connection, location, documents, now, delay_s=_REMOVAL_DELAY_LEASES * lease_s
    )
    connection.execute(update(vector_store_files).where(in_progress).values(status="cancelled"))
    return len(documents)


class _IndexLocation(NamedTuple):
    """Location of the points of a store's files."""

    store_id: str
    index_name: str | None  # the vector index, once the store has one


def _location(store: Row[Any]) -> _IndexLocation:
    return _IndexLocation(store_id=store.id, index_name=store.index_name)


def _remove(
    connection: Connection,
    location: _IndexLocation,
    documents: Sequence[str],
    now: float,
    lease_s: float,
) -> None:
    """Moves files to a store that is deleted: a job deletes their rows."""
    if not documents:
        return
    stop_ingestions(connection, documents)
    is_deleted = _FILES.id.in_(documents)
    in_progress = connection.scalars(
        select(_FILES.id).where(is_deleted, _FILES.status == "in_progress")
    ).all()
    rows_id, seq = store_rows.add_deleted(connection, now)
    # the id of its document, so that the files of this store have different ones
    moved = update(vector_store_files).values(
        store_seq=seq, batch_seq=None, file_id=vector_store_files.c.id
    )
    connection.execute(moved.where(is_deleted))
    _remove_points_later(
        connection, location, in_progress, now, delay_s=_REMOVAL_DELAY_LEASES * lease_s,
        rows_id=rows_id,
    )  # fmt: skip
    ingested = sorted({*documents} - {*in_progress})
    _remove_points_later(connection, location, ingested, now, rows_id=rows_id)


def _remove_points_later(
    connection: Connection,
    location: _IndexLocation,
    documents: Sequence[str],
    now: float,
    delay_s: float = 0.0,
    rows_id: str | None = None,
) -> None:
    """Adds jobs that remove the points of documents from the index, and the rows of the deleted
    store `rows_id`."""
    jobs = [
        NewJob(
            kind=REMOVE_FILE,
            subject=one,
            details={"store_id": location.store_id, "rows_id": rows_id},
            delay_s=delay_s,
            affinity=location.index_name,
        )
        for one in documents
    ]
    job_rows.add(connection, jobs, now=now)


def _row(file: NewVectorFile, store_seq: int, batch_seq: int | None, now: int) -> dict[str, object]:
    return {
        "id": file.document,
        "created_at": now,
        "store_seq": store_seq,
        "file_id": file.file_id,
        "batch_seq": batch_seq,
        "status": "in_progress",
        "error": None,
        "filename": file.filename,
        "usage_bytes": 0,
        "attributes": dict(file.attributes),
        "chunking": asdict(file.chunking),
    }


def _joined_select() -> Select[Any]:
    location = (vector_stores.c.id.label("store_id"), vector_stores.c.index_name)
    joined = select(vector_store_files, *location).join_from(vector_store_files, vector_stores)
    return joined.where(NOT_DELETED)


def _find_row(connection: Connection, store_id: str, file_id: str) -> Row[Any]:
    this = _joined_select().where(vector_stores.c.id == store_id, _FILES.file_id == file_id)
    return find_row(connection, this, store_id, file_id)


def _sort_keys(connection: Connection, store_id: str, file_id: str) -> tuple[int, int]:
    row = _find_row(connection, store_id, file_id)
    return row.created_at, row.seq


def _file(row: Row[Any]) -> StoredVectorFile:
    return StoredVectorFile(
        id=row.file_id,
        document=row.id,
        store_id=row.store_id,
        created_at=row.created_at,
        filename=row.filename,
        status=row.status,
        chunking=StoredChunking(**row.chunking),
        attributes=row.attributes,
        error=row.error and FileError(**row.error),
        usage_bytes=row.usage_bytes,
    )
