"""Chunks of files in vector stores as rows, each function part of a unit of work."""

from collections.abc import Sequence

from sqlalchemy import Connection, Select, delete, insert, select

from llm_backend.store.statement_parts import statement_parts
from llm_backend.store.tables.vector_stores import (
    NOT_DELETED,
    vector_store_chunks,
    vector_store_files,
    vector_stores,
)
from llm_backend.store.vector_stores.values import FoundChunk, StoredChunk

_CHUNKS = vector_store_chunks.c


def put(connection: Connection, file_seq: int, chunks: Sequence[StoredChunk]) -> None:
    """Replaces the chunks of a file."""
    connection.execute(delete(vector_store_chunks).where(_CHUNKS.file_seq == file_seq))
    rows = [
        {
            "file_seq": file_seq,
            "position": position,
            "point_id": chunk.point_id,
            "text": chunk.text,
            "repeated": chunk.repeated,
        }
        for position, chunk in enumerate(chunks)
    ]
    for part in statement_parts(rows):
        connection.execute(insert(vector_store_chunks), part)


def delete_some(connection: Connection, file_seqs: Select[tuple[int]], limit: int) -> int:
    """Deletes up to `limit` chunks of these files; returns their number."""
    some = select(_CHUNKS.point_id).where(_CHUNKS.file_seq.in_(file_seqs)).limit(limit)
    return connection.execute(
        delete(vector_store_chunks).where(_CHUNKS.point_id.in_(some))
    ).rowcount


def text_of(connection: Connection, file_seq: int) -> str:
    """The text of a file: its chunks without their overlaps."""
    parts = select(_CHUNKS.text, _CHUNKS.repeated).where(_CHUNKS.file_seq == file_seq)
    found = connection.execute(parts.order_by(_CHUNKS.position))
    return "".join(text[repeated:] for text, repeated in found)


def texts_of(connection: Connection, point_ids: Sequence[str]) -> list[FoundChunk]:
    """The chunks with these ids in the vector index; missing and deleted ones are left out."""
    files = vector_store_files.c
    joined = select(
        _CHUNKS.point_id, _CHUNKS.text, files.file_id, files.filename, files.attributes
    ).select_from(vector_store_chunks.join(vector_store_files).join(vector_stores))
    found: list[FoundChunk] = []
    for part in statement_parts(point_ids):
        query = joined.where(_CHUNKS.point_id.in_(part), NOT_DELETED)
        found += [FoundChunk(**row._mapping) for row in connection.execute(query)]
    return found
