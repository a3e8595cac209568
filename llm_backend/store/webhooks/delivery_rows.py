"""Deliveries of events to webhook endpoints, as jobs: each function one unit of work.

A job's subject is the id of its endpoint, and its details are the event as it is sent. The
transaction that stores the change which an event reports adds the jobs, so that none is lost.
"""

import logging
import uuid
from dataclasses import replace

from sqlalchemy import Connection, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.json_types import JsonMapping
from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.jobs import Job, NewJob, job_rows
from llm_backend.store.tables.jobs import jobs
from llm_backend.store.tables.webhooks import webhook_endpoints, webhook_failures
from llm_backend.store.webhooks.stored_endpoint import FailedDelivery

JOB = "webhook"
FAILURES_PER_ENDPOINT = 100  # the oldest ones beyond it are deleted

log = logging.getLogger(__name__)


def add(
    connection: Connection, type: str, subject_id: str, *, owner: str | None, now: float, limit: int
) -> int:
    """Adds a delivery for each endpoint of the owner that takes events of this type. An endpoint
    with `limit` waiting deliveries gets a failure instead; returns the number of these
    endpoints."""
    columns = webhook_endpoints.c
    is_owned = columns.owner.is_(None) if owner is None else columns.owner == owner
    query = select(columns.id, columns.event_types).where(is_owned, columns.disabled_at.is_(None))
    in_order = query.order_by(columns.seq)  # the order of the locks below, which prevents deadlocks
    ids = [row.id for row in connection.execute(in_order).all() if type in row.event_types]
    event = {
        "id": f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "type": type,
        "created_at": int(now),
        "data": {"id": subject_id},
    }
    dropped = 0
    for id in ids:
        lock_name(connection, f"deliveries to {id}")
        if job_rows.count(connection, JOB, limit, subject=id) < limit:
            job_rows.add(connection, [NewJob(kind=JOB, subject=id, details=event)], now=now)
        else:
            dropped += 1
            reason = f"{limit:,} deliveries to the endpoint were waiting already."
            failed = FailedDelivery(attempts=0, status_code=None, reason=reason)
            _record_failure(connection, id, event, failed, owner=owner, now=now, is_disabling=False)
            fields = {"endpoint_id": id, "event_id": event["id"], "event_type": type}
            log.warning("webhook_dropped", extra={**fields, "reason": reason})
    return dropped


def finish(connection: Connection, job: Job, *, now: float) -> None:
    """Ends a delivery that the endpoint has accepted. Raises `LeaseLost`."""
    job_rows.finish(connection, job)
    change = update(webhook_endpoints).where(webhook_endpoints.c.id == job.subject)
    connection.execute(change.values(working_at=now))


def postpone_others(connection: Connection, job: Job, *, until: float) -> None:
    """Postpones the deliveries to the job's endpoint that were neither attempted nor postponed."""
    # `created_at` is rounded down
    is_as_added = jobs.c.due_at < jobs.c.details["created_at"].as_float() + 1
    condition = (jobs.c.attempts == 0) & is_as_added
    job_rows.postpone_unleased(connection, JOB, job.subject, until=until, condition=condition)


def give_up(connection: Connection, job: Job, failed: FailedDelivery, *, now: float) -> int | None:
    """Ends a failed delivery, and records it. Raises `LeaseLost`.

    The endpoint is disabled if it has neither accepted a delivery nor been changed since the event;
    if it answered that it is gone, since that request. The waiting deliveries of a disabled
    endpoint are dropped.

    Returns:
        The number of dropped deliveries, or None if this has not disabled the endpoint.
    """
    job_rows.finish(connection, job)
    is_endpoint = webhook_endpoints.c.id == job.subject
    row = connection.execute(select(webhook_endpoints).where(is_endpoint).with_for_update()).first()
    if row is None:  # deleted
        return None
    dropped = 0
    if failed.gone_at is None:
        has_worked = int(row.working_at) > job.details["created_at"]
    else:
        has_worked = row.working_at > failed.gone_at
    is_disabling = row.disabled_at is None and not has_worked
    if is_disabling:
        connection.execute(
            update(webhook_endpoints).where(is_endpoint).values(disabled_at=int(now))
        )
        dropped = job_rows.remove_unleased(connection, JOB, job.subject)
    if dropped:
        reason = f"{failed.reason} Waiting events dropped with this one: {dropped:,}."
        failed = replace(failed, reason=reason)
    _record_failure(
        connection,
        row.id,
        job.details,
        failed,
        owner=row.owner,
        now=now,
        is_disabling=is_disabling,
    )
    return dropped if is_disabling else None


def _record_failure(
    connection: Connection,
    endpoint_id: str,
    event: JsonMapping,
    failed: FailedDelivery,
    *,
    owner: str | None,
    now: float,
    is_disabling: bool,
) -> None:
    """Inserts a failure, and deletes the oldest ones beyond `FAILURES_PER_ENDPOINT`."""
    row = {
        "id": f"whfail_{uuid.uuid4().hex}",
        "created_at": int(now),
        "owner": owner,
        "endpoint_id": endpoint_id,
        "event_id": event["id"],
        "event_type": event["type"],
        "subject_id": event["data"]["id"],
        "attempts": failed.attempts,
        "status_code": failed.status_code,
        "reason": failed.reason,
        "is_disabling": is_disabling,
    }
    connection.execute(insert(webhook_failures), row)
    of_endpoint = webhook_failures.c.endpoint_id == endpoint_id
    newest_first = select(webhook_failures.c.seq).order_by(webhook_failures.c.seq.desc())
    excess = connection.scalar(
        newest_first.where(of_endpoint).offset(FAILURES_PER_ENDPOINT).limit(1)
    )
    if excess is not None:
        is_excess = of_endpoint & (webhook_failures.c.seq <= excess)
        connection.execute(delete_from(webhook_failures).where(is_excess))
