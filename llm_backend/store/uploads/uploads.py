"""Store of uploads: files that arrive in parts, concurrently and in any order, joined without a
copy.

Each change of an upload locks its row until the transaction ends. So of two requests that complete
or cancel an upload one succeeds, and the other gets `UploadClosed`.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.durations import DAY_S
from llm_backend.store.database.database import Database
from llm_backend.store.errors import BadParts, UploadClosed, UploadFull, WrongDigest
from llm_backend.store.files import file_byte_total, file_rows
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.objects import Blobs, orphans
from llm_backend.store.objects.blob import Content, from_json, size_of, to_json
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.files import upload_parts, uploads
from llm_backend.store.text_checks import check_texts
from llm_backend.store.uploads.stored_upload import (
    PartLimits,
    StoredPart,
    StoredUpload,
    UploadStatus,
)

_CLOSED_KEPT_S = DAY_S  # seconds after its expiry that the row of an ended upload is kept
_EXPIRED_UPLOADS_PER_TRANSACTION = 100


class UploadStore:
    """The uploads of a database, and `blobs`, which stores their parts."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        *,
        limit_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.blobs = blobs
        self._limit_bytes = limit_bytes  # of all files, uploads and voices together
        self._database = database
        self._clock = clock

    async def add(self, upload: StoredUpload) -> None:
        """Creates an upload. Raises `Unstorable`."""
        check_texts(upload.id, upload.purpose, upload.filename, upload.media_type)
        await self._database.write(_add, upload=upload)

    async def check(self, id: str) -> StoredUpload:
        """The upload. Raises `Missing` or `UploadClosed` unless parts can be added."""
        return await self._database.read(_check, id=id, now=self._now())

    async def add_part(self, part: StoredPart, limits: PartLimits) -> None:
        """Adds a part whose blob is written; durable on return.

        Raises `Missing`, `UploadClosed`, `UploadFull`, `FilesFull`, `BlobGone`.
        """
        await self._database.write(
            _add_part, part=part, limits=limits, now=self._now(), limit_bytes=self._limit_bytes
        )

    async def complete(
        self, id: str, part_ids: Sequence[str], *, file_id: str, md5: str | None = None
    ) -> tuple[StoredUpload, StoredFile]:
        """Makes a file of the parts, in this order; parts that are not named are deleted.

        Raises `Missing`, `UploadClosed`, `BadParts`, and `WrongDigest` if `md5` is not that of the
        file.
        """
        if md5 is not None:
            content = await self._database.read(
                _content_of, id=id, part_ids=part_ids, now=self._now()
            )
            found = await self._md5(content)
            if found != md5.lower():
                raise WrongDigest(f"The MD5 of the parts is {found}, not {md5[:64]}.")
        upload, file, keys = await self._database.write(
            _complete, id=id, part_ids=part_ids, file_id=file_id, now=self._now()
        )
        await self.blobs.remove(keys)
        return upload, file

    async def cancel(self, id: str) -> StoredUpload:
        """Cancels an upload and deletes its parts. Raises `Missing`, `UploadClosed`."""
        upload, keys = await self._database.write(_cancel, id=id, now=self._now())
        await self.blobs.remove(keys)
        return upload

    async def expire(self) -> None:
        """Closes the expired uploads; their bytes are removed by the next sweep of the blobs."""
        while await self._database.write(_expire, now=self._now()):
            pass
        before = self._now() - _CLOSED_KEPT_S
        await self._database.write(_forget, before=before)

    async def _md5(self, content: Content) -> str:
        digest = hashlib.md5(usedforsecurity=False)
        async with aclosing(self.blobs.read(content, 0, size_of(content))) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(digest.update, piece)
        return digest.hexdigest()

    def _now(self) -> int:
        return int(self._clock())


def _add(connection: Connection, upload: StoredUpload) -> None:
    row = row_from(upload, uploads, status=upload.status.value)
    connection.execute(insert(uploads), row)


def _check(connection: Connection, id: str, now: int) -> StoredUpload:
    return _upload(_find_open(connection, id, now))


def _add_part(
    connection: Connection,
    part: StoredPart,
    limits: PartLimits,
    now: int,
    limit_bytes: int | None,
) -> None:
    """Inserts the part, and claims its blob.

    Raises `Missing`, `UploadClosed`, `UploadFull`, `BlobGone`, and `FilesFull` if files, uploads
    and voices then exceed `limit_bytes`.
    """
    upload = _find_open(connection, part.upload_id, now, is_locked=True)
    of_upload = upload_parts.c.upload_seq == upload.seq
    sums = select(func.count(), func.sum(upload_parts.c.size_bytes)).where(of_upload)
    number, size_bytes = connection.execute(sums).one()
    if number >= limits.parts:
        raise UploadFull(f"An upload may have at most {limits.parts} parts.")
    if (size_bytes or 0) + part.blob.size_bytes > limits.total_bytes:
        raise UploadFull(f"The parts of an upload may have at most {limits.total_bytes} bytes.")
    orphans.claim(connection, (part.blob,))
    row = {
        "id": part.id,
        "upload_seq": upload.seq,
        "created_at": part.created_at,
        "size_bytes": part.blob.size_bytes,
        "content": to_json((part.blob,)),
    }
    connection.execute(insert(upload_parts), row)
    file_byte_total.add(connection, part.blob.size_bytes, limit_bytes)


def _content_of(connection: Connection, id: str, part_ids: Sequence[str], now: int) -> Content:
    upload = _find_open(connection, id, now)
    return _join_parts(upload, part_ids, _parts(connection, upload.seq))


def _complete(
    connection: Connection, id: str, part_ids: Sequence[str], file_id: str, now: int
) -> tuple[StoredUpload, StoredFile, Sequence[str]]:
    """Makes a file of the parts, in this order: returns the upload, the file, and the keys of
    unused blobs.

    Raises `Missing`, `UploadClosed`, `BadParts`.
    """
    upload = _find_open(connection, id, now, is_locked=True)
    parts = _parts(connection, upload.seq)
    file = StoredFile(
        id=file_id,
        created_at=now,
        purpose=upload.purpose,
        filename=upload.filename,
        media_type=upload.media_type,
        content=_join_parts(upload, part_ids, parts),
        expires_at=None if upload.file_lifetime_s is None else now + upload.file_lifetime_s,
        owner=upload.owner,
    )
    file_rows.insert_file(connection, file)
    unused = [blob for id in parts.keys() - set(part_ids) for blob in parts[id]]
    keys = orphans.discard(connection, unused)
    closed = _close(connection, upload, UploadStatus.COMPLETED)
    file_byte_total.subtract(connection, size_of(unused))
    return closed, file, keys


def _cancel(connection: Connection, id: str, now: int) -> tuple[StoredUpload, Sequence[str]]:
    """Cancels the upload; returns it and the keys of its blobs.

    Raises `Missing`, `UploadClosed`.
    """
    upload = _find_open(connection, id, now, is_locked=True)
    sent = _uploaded_content(connection, upload)
    keys = orphans.discard(connection, sent)
    closed = _close(connection, upload, UploadStatus.CANCELLED)
    file_byte_total.subtract(connection, size_of(sent))
    return closed, keys


def _expire(connection: Connection, now: int) -> bool:
    has_expired = (uploads.c.expires_at <= now) & (uploads.c.status == UploadStatus.PENDING.value)
    expired = select(uploads).where(has_expired).order_by(uploads.c.expires_at)
    oldest = expired.limit(_EXPIRED_UPLOADS_PER_TRANSACTION)
    rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
    freed_bytes = 0
    for row in rows:
        sent = _uploaded_content(connection, row)
        orphans.discard(connection, sent)
        _close(connection, row, UploadStatus.EXPIRED)
        freed_bytes += size_of(sent)
    file_byte_total.subtract(connection, freed_bytes)
    return len(rows) == _EXPIRED_UPLOADS_PER_TRANSACTION


def _forget(connection: Connection, before: int) -> None:
    ended = (uploads.c.expires_at <= before) & (uploads.c.status != UploadStatus.PENDING.value)
    connection.execute(delete_from(uploads).where(ended))


def _find_open(connection: Connection, id: str, now: int, *, is_locked: bool = False) -> Row[Any]:
    this = select(uploads).where(uploads.c.id == id)
    if is_locked:
        this = this.with_for_update()
    row = find_row(connection, this, id)
    if row.status != UploadStatus.PENDING.value:
        raise UploadClosed(id, row.status)
    if row.expires_at <= now:
        raise UploadClosed(id, UploadStatus.EXPIRED.value)
    return row


def _parts(connection: Connection, upload_seq: int) -> dict[str, Content]:
    of_upload = select(upload_parts).where(upload_parts.c.upload_seq == upload_seq)
    return {row.id: from_json(row.content) for row in connection.execute(of_upload)}


def _join_parts(upload: Row[Any], part_ids: Sequence[str], parts: dict[str, Content]) -> Content:
    for part_id in part_ids:
        if part_id not in parts:
            raise BadParts(f"The upload `{upload.id}` has no part `{part_id}`.")
    if len(set(part_ids)) != len(part_ids):
        raise BadParts("A part is named more than once.")
    content = tuple(blob for part_id in part_ids for blob in parts[part_id])
    size_bytes = size_of(content)
    if size_bytes != upload.size_bytes:
        raise BadParts(
            f"The parts have {size_bytes} bytes together; the upload was created for "
            f"{upload.size_bytes}."
        )
    return content


def _uploaded_content(connection: Connection, upload: Row[Any]) -> Content:
    """The content of all parts of an upload."""
    parts = _parts(connection, upload.seq)
    return tuple(blob for blobs in parts.values() for blob in blobs)


def _close(connection: Connection, upload: Row[Any], status: UploadStatus) -> StoredUpload:
    """Deletes the parts, sets the last status of the upload, and returns it."""
    connection.execute(delete_from(upload_parts).where(upload_parts.c.upload_seq == upload.seq))
    this = update(uploads).where(uploads.c.seq == upload.seq)
    connection.execute(this.values(status=status.value))
    return replace(_upload(upload), status=status)


def _upload(row: Row[Any]) -> StoredUpload:
    return value_from(row, StoredUpload, status=UploadStatus(row.status))
