"""Webhook endpoints as rows: SQL statements, each function one unit of work on a connection."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.database.ownership import owner_of
from llm_backend.store.errors import EndpointsFull
from llm_backend.store.jobs import job_rows
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.webhooks import webhook_endpoints, webhook_failures
from llm_backend.store.webhooks.delivery_rows import JOB
from llm_backend.store.webhooks.stored_endpoint import (
    EndpointChanges,
    StoredEndpoint,
    StoredFailure,
)


def add(connection: Connection, endpoint: StoredEndpoint, *, now: float, limit: int) -> None:
    """Inserts the endpoint. Raises `EndpointsFull` if its owner has `limit` of them."""
    owner = owner_of(connection)
    lock_name(connection, f"webhook endpoints of {owner and owner.id}")
    count = select(func.count()).select_from(webhook_endpoints)
    if int(connection.scalar(count) or 0) >= limit:
        raise EndpointsFull(limit)
    row = row_from(endpoint, webhook_endpoints, working_at=now)
    connection.execute(insert(webhook_endpoints), row | {"event_types": [*endpoint.event_types]})


def get(connection: Connection, id: str) -> StoredEndpoint:
    """Returns the endpoint with this id. Raises `Missing`."""
    return _endpoint(_row(connection, id))


def find(connection: Connection, request: PageRequest) -> Page[StoredEndpoint]:
    """Returns a page of all endpoints. Raises `UnknownCursor`."""

    def sort_keys(id: str) -> tuple[int, int]:
        row = _row(connection, id)
        return row.created_at, row.seq

    keys = (webhook_endpoints.c.created_at, webhook_endpoints.c.seq)
    bound = cursor_keys(request, sort_keys)
    rows, has_more = fetch(connection, select(webhook_endpoints), request, keys=keys, bound=bound)
    return Page(items=[_endpoint(row) for row in rows], has_more=has_more)


def change(
    connection: Connection, id: str, changes: EndpointChanges, *, now: float
) -> StoredEndpoint:
    """Changes the endpoint, enables it if it is disabled, and returns it. Raises `Missing`."""
    before = _endpoint(_row(connection, id, is_locked=True))
    given: dict[str, object] = {"name": changes.name, "url": changes.url}
    if changes.event_types is not None:
        given |= {"event_types": [*changes.event_types]}
    values = {
        name: value for name, value in given.items() if value not in (None, getattr(before, name))
    }
    updated_at = int(now) if values else before.updated_at
    return _update(
        connection, id, **values, updated_at=updated_at, working_at=now, disabled_at=None
    )


def rotate(
    connection: Connection, id: str, secret: str, *, previous_until: int | None, now: float
) -> StoredEndpoint:
    """Replaces the secret of the endpoint, and returns it. The present secret holds until
    `previous_until`. Raises `Missing`."""
    before = _row(connection, id, is_locked=True)
    previous = None if previous_until is None else before.secret
    return _update(
        connection,
        id,
        secret=secret,
        previous_secret=previous,
        previous_secret_until=previous_until,
        updated_at=int(now),
    )


def delete(connection: Connection, id: str) -> None:
    """Deletes the endpoint, its deliveries and its failures. Raises `Missing`.

    Jobs are locked before their endpoint, as at the end of a delivery, to prevent deadlocks.
    """
    _row(connection, id)
    job_rows.remove(connection, JOB, id)
    connection.execute(delete_from(webhook_failures).where(webhook_failures.c.endpoint_id == id))
    connection.execute(delete_from(webhook_endpoints).where(webhook_endpoints.c.id == id))


def failures(connection: Connection, id: str) -> Sequence[StoredFailure]:
    """Returns the failures of an endpoint, the newest first. Raises `Missing`."""
    _row(connection, id)
    query = select(webhook_failures).where(webhook_failures.c.endpoint_id == id)
    newest_first = query.order_by(webhook_failures.c.seq.desc())
    return [value_from(row, StoredFailure) for row in connection.execute(newest_first)]


def expire(connection: Connection, *, now: int) -> None:
    """Erases previous secrets that are no longer valid, and failures of deleted endpoints."""
    has_expired = webhook_endpoints.c.previous_secret_until <= now
    erased = {"previous_secret": None, "previous_secret_until": None}
    connection.execute(update(webhook_endpoints).where(has_expired).values(erased))
    has_endpoint = exists().where(webhook_endpoints.c.id == webhook_failures.c.endpoint_id)
    connection.execute(delete_from(webhook_failures).where(~has_endpoint))


def _update(connection: Connection, id: str, **values: Any) -> StoredEndpoint:
    change = update(webhook_endpoints).where(webhook_endpoints.c.id == id).values(**values)
    return _endpoint(connection.execute(change.returning(*webhook_endpoints.c)).one())


def _row(connection: Connection, id: str, *, is_locked: bool = False) -> Row[Any]:
    query = select(webhook_endpoints).where(webhook_endpoints.c.id == id)
    return find_row(connection, query.with_for_update() if is_locked else query, id)


def _endpoint(row: Row[Any]) -> StoredEndpoint:
    return value_from(row, StoredEndpoint)
