"""Administered objects as rows: each function is one unit of work on a connection."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Table, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError

from llm_backend.store.administration.values import (
    AccessSnapshot,
    AuditEntry,
    AuditFilter,
    Record,
    StoredKey,
)
from llm_backend.store.database.driver_errors import is_taken
from llm_backend.store.database.metadata import counters
from llm_backend.store.database.upsert import add_up
from llm_backend.store.errors import Duplicate, Missing
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.administration import administered, api_keys, audit_logs

VERSION = "administration"

_EXPIRED_ENTRIES_PER_TRANSACTION = 500  # of the audit log
_Value = TypeVar("_Value", Record, StoredKey, AuditEntry)


def version(connection: Connection) -> int:
    """Returns the number of changes so far."""
    this = select(counters.c.value).where(counters.c.name == VERSION)
    return connection.execute(this).scalar_one_or_none() or 0


def load_snapshot(connection: Connection, kinds: Sequence[str]) -> AccessSnapshot:
    """Returns all keys, and all records of these kinds."""
    records = select(administered).where(administered.c.kind.in_(kinds))
    return AccessSnapshot(
        version=version(connection),
        records=[value_from(row, Record) for row in connection.execute(records)],
        keys=[value_from(row, StoredKey) for row in connection.execute(select(api_keys))],
    )


def add_record(connection: Connection, record: Record) -> None:
    """Inserts the record. Raises `Duplicate`."""
    row = row_from(record, administered)
    try:
        connection.execute(insert(administered), row)
    except IntegrityError as error:
        if is_taken(error):
            raise Duplicate(record.id) from error
        raise


def get_record(connection: Connection, kind: str, id: str) -> Record:
    """Returns the record of this kind and id. Raises `Missing`."""
    return value_from(_one(connection, administered, id, administered.c.kind == kind), Record)


def find_record(connection: Connection, kind: str, id: str) -> Record | None:
    """Returns the record of this kind and id; None if there is none."""
    try:
        return get_record(connection, kind, id)
    except Missing:
        return None


def lock_record(connection: Connection, kind: str, id: str) -> Record:
    """Locks a record until the end of this transaction, and returns it. Raises `Missing`."""
    this = (administered.c.id == id) & (administered.c.kind == kind)
    connection.execute(select(administered.c.id).where(this).with_for_update())
    return get_record(connection, kind, id)


def replace_record(connection: Connection, record: Record) -> None:
    """Replaces the body of the record of this kind and id. Raises `Missing`."""
    get_record(connection, record.kind, record.id)
    this = update(administered).where(administered.c.id == record.id)
    connection.execute(this.values(body=record.body))


def upsert_record(connection: Connection, record: Record) -> None:
    """Inserts the record, or replaces the body of the one with its id."""
    this = update(administered).where(administered.c.id == record.id)
    if not connection.execute(this.values(body=record.body)).rowcount:
        add_record(connection, record)


def delete_record(connection: Connection, kind: str, id: str) -> None:
    """Deletes the record of this kind and id. Raises `Missing`."""
    get_record(connection, kind, id)
    connection.execute(delete_from(administered).where(administered.c.id == id))


def delete_records_by_prefix(connection: Connection, prefix: str) -> None:
    """Deletes the records whose ids begin with this prefix."""
    these = administered.c.id.startswith(prefix, autoescape=True)
    connection.execute(delete_from(administered).where(these))


def find_records(
    connection: Connection, kind: str, project_id: str | None, request: PageRequest
) -> Page[Record]:
    """Returns a page of the records of a kind, of a project or (None) the organization. Raises
    `UnknownCursor`."""
    is_in_project = administered.c.project_id.is_not_distinct_from(project_id)
    listing = select(administered).where(administered.c.kind == kind, is_in_project)
    return _page(connection, administered, listing, request, Record)


def add_key(connection: Connection, key: StoredKey) -> None:
    """Inserts the key."""
    connection.execute(insert(api_keys), vars(key))


def get_key(connection: Connection, id: str, project_id: str | None) -> StoredKey:
    """Returns the key of this id in a project; without a project, the admin key. Raises
    `Missing`."""
    is_in_project = api_keys.c.project_id.is_not_distinct_from(project_id)
    return value_from(_one(connection, api_keys, id, is_in_project), StoredKey)


def find_keys(
    connection: Connection, project_id: str | None, request: PageRequest
) -> Page[StoredKey]:
    """Returns a page of a project's keys; without a project, of the admin keys. Raises
    `UnknownCursor`."""
    listing = select(api_keys).where(api_keys.c.project_id.is_not_distinct_from(project_id))
    return _page(connection, api_keys, listing, request, StoredKey)


def delete_key(connection: Connection, id: str) -> None:
    """Deletes the key of this id, in any project. Raises `Missing`."""
    _one(connection, api_keys, id)
    connection.execute(delete_from(api_keys).where(api_keys.c.id == id))


def delete_keys_of(
    connection: Connection,
    *,
    project_id: str | None = None,
    service_account_id: str | None = None,
    user_id: str | None = None,
) -> None:
    """Deletes the keys that match all of the given values."""
    given = {
        api_keys.c.project_id: project_id,
        api_keys.c.service_account_id: service_account_id,
        api_keys.c.user_id: user_id,
    }
    conditions = [column == value for column, value in given.items() if value is not None]
    assert conditions, "at least one value: otherwise all keys would be deleted"
    connection.execute(delete_from(api_keys).where(*conditions))


def record_key_use(connection: Connection, times: dict[str, int]) -> None:
    """Records the time of each key's last use, by its id. Deleted keys are skipped, and times
    before the recorded one, too: another server has recorded a later use."""
    last = api_keys.c.last_used_at
    for id, used_at in sorted(times.items()):
        this = update(api_keys).where(api_keys.c.id == id, last.is_(None) | (last < used_at))
        connection.execute(this.values(last_used_at=used_at))


def add_audit_entry(connection: Connection, entry: AuditEntry) -> None:
    """Inserts the entry, and counts its change."""
    connection.execute(insert(audit_logs), vars(entry))
    add_up(connection, counters, [{"name": VERSION, "value": 1}])


def find_audit_entries(
    connection: Connection, criteria: AuditFilter, request: PageRequest
) -> Page[AuditEntry]:
    """Returns a page of the entries that match. Raises `UnknownCursor`."""
    listing = select(audit_logs).where(*_conditions(criteria))
    return _page(connection, audit_logs, listing, request, AuditEntry)


def delete_audit_entries(connection: Connection, before: int) -> bool:
    """Deletes some of the entries from before this time. Returns True if more may be left."""
    expired = select(audit_logs.c.seq).where(audit_logs.c.created_at < before)
    by_age = expired.order_by(audit_logs.c.created_at, audit_logs.c.seq)
    oldest = by_age.limit(_EXPIRED_ENTRIES_PER_TRANSACTION)
    seqs = connection.scalars(oldest.with_for_update(skip_locked=True)).all()
    connection.execute(delete_from(audit_logs).where(audit_logs.c.seq.in_(seqs)))
    return len(seqs) == _EXPIRED_ENTRIES_PER_TRANSACTION


def _conditions(criteria: AuditFilter) -> list[ColumnElement[bool]]:
    columns = audit_logs.c
    among = {
        columns.type: criteria.types,
        columns.project_id: criteria.project_ids,
        columns.actor_id: criteria.actor_ids,
        columns.actor_email: criteria.actor_emails,
        columns.resource_id: criteria.resource_ids,
    }
    conditions: list[ColumnElement[bool]] = [
        column.in_(values) for column, values in among.items() if values is not None
    ]
    if criteria.after_s is not None:
        conditions.append(columns.created_at > criteria.after_s)
    if criteria.since_s is not None:
        conditions.append(columns.created_at >= criteria.since_s)
    if criteria.before_s is not None:
        conditions.append(columns.created_at < criteria.before_s)
    if criteria.until_s is not None:
        conditions.append(columns.created_at <= criteria.until_s)
    return conditions


def _one(connection: Connection, table: Table, id: str, *more: ColumnElement[bool]) -> Row[Any]:
    this = select(table).where(table.c.id == id, *more)
    return find_row(connection, this, id)


def _page(
    connection: Connection, table: Table, listing: Any, request: PageRequest, kind: type[_Value]
) -> Page[_Value]:
    bound = cursor_keys(request, lambda id: _sort_keys(connection, table, id))
    keys = (table.c.created_at, table.c.seq)
    rows, has_more = fetch(connection, listing, request, keys=keys, bound=bound)
    return Page(items=[value_from(row, kind) for row in rows], has_more=has_more)


def _sort_keys(connection: Connection, table: Table, id: str) -> tuple[int, int]:
    row = _one(connection, table, id)
    return row.created_at, row.seq
