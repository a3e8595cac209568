"""Administration: records and keys, each change in one transaction with its audit log entry."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from llm_backend.json_types import JsonMapping
from llm_backend.store.administration import rows
from llm_backend.store.administration.values import (
    AccessSnapshot,
    AuditEntry,
    AuditFilter,
    Record,
    StoredKey,
)
from llm_backend.store.database.database import Database
from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.database.write_queue import UnitOfWork
from llm_backend.store.errors import Missing
from llm_backend.store.keyset_pages import Page, PageRequest
from llm_backend.store.text_checks import check_texts

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AuditedChange:
    """A change as the audit log records it, with its actor."""

    type: str
    resource_id: str
    project_id: str | None = None
    body: JsonMapping = field(default_factory=dict)
    actor_id: str | None = None
    actor_email: str | None = None


class Administration:
    """The administered objects of a database.

    A method that changes an object takes the `AuditedChange` for the audit log, and is durable on
    return. Methods raise `Missing` for an unknown id and `UnknownCursor` for an unknown cursor.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def version(self) -> int:
        """Returns the number of changes so far. A value cached at this number is still valid."""
        return await self._database.read(rows.version)

    async def load_snapshot(self, kinds: Sequence[str]) -> AccessSnapshot:
        """Returns all keys, and all records of these kinds."""
        return await self._database.read(rows.load_snapshot, kinds=kinds)

    async def get(self, kind: str, id: str) -> Record:
        """Returns a record."""
        return await self._database.read(rows.get_record, kind=kind, id=id)

    async def has(self, kind: str, id: str) -> bool:
        """True if the record exists."""
        try:
            await self.get(kind, id)
        except Missing:
            return False
        return True

    async def find(
        self, kind: str, request: PageRequest, *, project_id: str | None = None
    ) -> Page[Record]:
        """Returns a page of the records of a kind by creation: of a project, or of the
        organization."""
        return await self._database.read(
            rows.find_records, kind=kind, project_id=project_id, request=request
        )

    async def add(
        self,
        change: AuditedChange,
        record: Record,
        *keys: StoredKey,
        part_of: tuple[str, str] | None = None,
    ) -> None:
        """Stores a record and keys. `part_of` is the kind and id of a record that must exist, and
        whose deletion deletes this one. Raises `Duplicate`, `Unstorable`."""
        check_texts(record.id)

        def work(connection: Connection) -> None:
            if part_of is not None:
                rows.lock_record(connection, *part_of)
            rows.add_record(connection, record)
            for key in keys:
                rows.add_key(connection, key)

        await self._write_audited(change, work)

    async def alter(
        self, change: AuditedChange, kind: str, id: str, change_record: Callable[[Record], Record]
    ) -> Record:
        """Replaces a record by the result of `change_record`, and returns the new one."""

        def work(connection: Connection) -> Record:
            record = change_record(rows.lock_record(connection, kind, id))
            rows.replace_record(connection, record)
            return record

        return await self._write_audited(change, work)

    async def put(self, change: AuditedChange, record: Record) -> None:
        """Inserts a record, or replaces the one with its id."""
        await self.merge(change, record, lambda _: record)

    async def merge(
        self, change: AuditedChange, record: Record, merge: Callable[[Record], Record]
    ) -> Record:
        """Inserts a record, or replaces the one with its id by what `merge` makes of that one.
        Returns the stored record. Concurrent changes of it wait for each other."""
        check_texts(record.id)

        def work(connection: Connection) -> Record:
            lock_name(connection, f"{record.kind} {record.id}")
            stored = rows.find_record(connection, record.kind, record.id)
            new = record if stored is None else merge(stored)
            rows.upsert_record(connection, new)
            return new

        return await self._write_audited(change, work)

    async def remove(
        self,
        change: AuditedChange,
        kind: str,
        id: str,
        *,
        and_ids_beginning: str = "",
        **key_filter: str,
    ) -> None:
        """Deletes a record, the records whose ids begin with `and_ids_beginning`, and the keys with
        these values in the columns that `key_filter` names."""

        def work(connection: Connection) -> None:
            rows.delete_record(connection, kind, id)
            if and_ids_beginning:
                rows.delete_records_by_prefix(connection, and_ids_beginning)
            if key_filter:
                rows.delete_keys_of(connection, **key_filter)

        await self._write_audited(change, work)

    async def key(self, id: str, *, project_id: str | None = None) -> StoredKey:
        """Returns a key of a project; an admin key if no project is given."""
        return await self._database.read(rows.get_key, id=id, project_id=project_id)

    async def keys(self, request: PageRequest, *, project_id: str | None = None) -> Page[StoredKey]:
        """Returns a page of a project's keys; of the admin keys if no project is given."""
        return await self._database.read(rows.find_keys, project_id=project_id, request=request)

    async def add_key(self, change: AuditedChange, key: StoredKey) -> None:
        """Stores a key. Raises `Unstorable`."""
        check_texts(key.name)
        await self._write_audited(change, partial(rows.add_key, key=key))

    async def remove_key(self, change: AuditedChange, id: str) -> None:
        """Deletes a key of any project, or an admin key."""
        await self._write_audited(change, partial(rows.delete_key, id=id))

    async def record_key_use(self, times: Mapping[str, int]) -> None:
        """Records the time at which each key was last used (unix seconds), by its id. This is not
        counted as a change."""
        await self._database.write(rows.record_key_use, times=dict(times))

    async def audit_entries(self, criteria: AuditFilter, request: PageRequest) -> Page[AuditEntry]:
        """Returns a page of the audit log."""
        return await self._database.read(
            rows.find_audit_entries, criteria=criteria, request=request
        )

    async def delete_audit_entries(self, before: int) -> None:
        """Deletes the entries from before the time `before`, in unix seconds. The audit log does
        not record this."""
        while await self._database.write(rows.delete_audit_entries, before=before):
            pass

    async def _write_audited(self, change: AuditedChange, work: UnitOfWork[T]) -> T:
        entry = AuditEntry(
            id=f"audit_log-{uuid.uuid4().hex}", created_at=int(self._clock()), **vars(change)
        )

        def with_entry(connection: Connection) -> T:
            done = work(connection)
            rows.add_audit_entry(connection, entry)
            return done

        return await self._database.write(with_entry)
