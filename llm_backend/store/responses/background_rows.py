"""Background responses as rows: each function is one unit of work.

A response and its job are inserted in one transaction, and end in one transaction. A row of events
holds several, each a line of text. `last_number` is the number of its last event; the numbers of a
response's events are contiguous.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from llm_backend.json_types import JsonMapping
from llm_backend.store.conversations import conversation_rows
from llm_backend.store.conversations.stored_conversation import StoredItem
from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.errors import Missing, QueueFull
from llm_backend.store.jobs import Job, NewJob, job_rows
from llm_backend.store.json_text import encode
from llm_backend.store.responses import response_rows
from llm_backend.store.responses.stored_response import (
    BackgroundResponseState,
    Events,
    StoredResponse,
)
from llm_backend.store.row_values import find_row, is_id
from llm_backend.store.tables.conversations import response_events, response_items, responses
from llm_backend.store.webhooks import delivery_rows

JOB = "response"
ACTIVE = response_rows.ACTIVE


def add(
    connection: Connection,
    response: StoredResponse,
    details: JsonMapping,
    new_events: Events,
    *,
    now: float,
    limit: int,
) -> None:
    """Inserts the response with its input, its first events, and the job that answers it. Raises
    `QueueFull` if `limit` jobs of this kind exist already."""
    lock_name(connection, "background responses")
    if job_rows.count(connection, JOB, limit) >= limit:
        raise QueueFull(limit)
    seq = response_rows.add(connection, response)
    _append_events(connection, seq, new_events)
    job = NewJob(kind=JOB, subject=response.id, details=details, affinity=response.model)
    job_rows.add(connection, [job], now=now)


def begin(connection: Connection, job: Job) -> BackgroundResponseState | None:
    """Sets the response in progress, and returns its state. Returns None for one that has ended or
    was deleted."""
    job_rows.lock(connection, job)
    row = connection.execute(_of(job.subject).with_for_update()).first()
    if row is None or row.status not in ACTIVE:
        return None
    _replace_body(connection, row, {**row.body, "status": "in_progress"})
    return BackgroundResponseState(
        body=row.body,
        input=response_rows.input_items(connection, row.seq),
        last_number=_last_number(connection, row.seq),
    )


def append(connection: Connection, job: Job, new_events: Events) -> None:
    """Appends events. Raises `LeaseLost`, and `Missing` if the response is gone."""
    job_rows.lock(connection, job)
    _append_events(connection, response_rows.find_seq(connection, job.subject), new_events)


def finish(
    connection: Connection,
    job: Job,
    body: JsonMapping,
    output: Sequence[StoredItem],
    new_events: Events,
    *,
    now: float,
    delivery_limit: int,
) -> int:
    """Ends the response and its job, adds its items to its conversation, and adds the deliveries of
    its end to webhooks; returns the number of deliveries that were beyond `delivery_limit`.

    Raises `LeaseLost`, and `Missing` if the response or its conversation was deleted.
    """
    job_rows.finish(connection, job)
    row = connection.execute(_of(job.subject).with_for_update()).first()
    if row is None:
        raise Missing(job.subject)
    _replace_body(connection, row, body)
    conversation_id = (
        row.conversation_id if response_rows.joins_conversation(body["status"]) else None
    )
    if conversation_id is not None:
        conversation_rows.lock(connection, conversation_id)
    _add_output(connection, row.seq, output)
    _append_events(connection, row.seq, new_events)
    if conversation_id is not None:
        added = [*response_rows.input_items(connection, row.seq), *output]
        conversation_rows.add_items(connection, conversation_id, added)
    return _add_deliveries(connection, row.owner, body, now=now, limit=delivery_limit)


def cancel(
    connection: Connection,
    id: str,
    *,
    ending: Callable[[int], str],
    now: float,
    delivery_limit: int,
) -> tuple[JsonMapping, int]:
    """Cancels the response unless it has ended; returns its body, and the number of deliveries of
    webhooks that were beyond `delivery_limit`. If the response has events, `ending` makes the last
    one from its number. Raises `Missing`."""
    _remove_job(connection, id)
    row = connection.execute(_of(id).with_for_update()).first()
    if row is None:
        raise Missing(id)
    body: JsonMapping = row.body
    if row.status not in ACTIVE:
        return body, 0
    cancelled = {**body, "status": "cancelled"}
    _replace_body(connection, row, cancelled)
    last_number = _last_number(connection, row.seq)
    if last_number is not None:
        number = last_number + 1
        _append_events(connection, row.seq, Events(lines=(ending(number),), last_number=number))
    dropped = _add_deliveries(connection, row.owner, cancelled, now=now, limit=delivery_limit)
    return cancelled, dropped


def keep_output(connection: Connection, id: str, output: Sequence[StoredItem]) -> None:
    """Stores the output that was produced before the response was cancelled. Does nothing for a
    response that is not cancelled or has output already."""
    row = connection.execute(_of(id).with_for_update()).first()
    if row is None or row.status != "cancelled" or row.body["output"]:
        return
    _replace_body(connection, row, {**row.body, "output": [dict(one.item) for one in output]})
    _add_output(connection, row.seq, output)


def delete_response(connection: Connection, id: str) -> None:
    """Deletes the response, its job, and its items that nothing else contains. Raises
    `Missing`."""
    _remove_job(connection, id)
    response_rows.delete_responses(connection, [response_rows.find_seq(connection, id)])


def events(connection: Connection, id: str, after: int, limit: int) -> Events | None:
    """Returns the events after this number, from at most `limit` rows; None once no more can come.

    Raises `Missing`.
    """
    row = find_row(connection, _of(id), id)
    found = (
        select(response_events.c.last_number, response_events.c.events)
        .where(response_events.c.response_seq == row.seq, response_events.c.last_number > after)
        .order_by(response_events.c.last_number)
        .limit(limit)
    )
    rows = connection.execute(found).all()
    if not rows:
        return Events(last_number=after) if row.status in ACTIVE else None
    lines = [line for row in rows for line in row.events.split("\n")]
    last_number = rows[-1].last_number
    return Events(lines=lines[after - last_number :], last_number=last_number)


def has_events(connection: Connection, id: str) -> bool:
    """True if events of this response are stored. Raises `Missing`."""
    return _last_number(connection, response_rows.find_seq(connection, id)) is not None


def _remove_job(connection: Connection, id: str) -> None:
    """Deletes the job, before the response is locked: every transaction locks these two in this
    order."""
    if not is_id(id):
        raise Missing(id)
    job_rows.remove(connection, JOB, id)


def _add_deliveries(
    connection: Connection, owner: str | None, body: JsonMapping, *, now: float, limit: int
) -> int:
    type = f"response.{body['status']}"
    return delivery_rows.add(connection, type, body["id"], owner=owner, now=now, limit=limit)


def _append_events(connection: Connection, seq: int, new_events: Events) -> None:
    if new_events.lines:
        text = "\n".join(new_events.lines)
        row = {"response_seq": seq, "last_number": new_events.last_number, "events": text}
        connection.execute(insert(response_events), row)
        change = update(responses).where(responses.c.seq == seq)
        connection.execute(change.values(size_bytes=responses.c.size_bytes + len(text)))


def _add_output(connection: Connection, seq: int, output: Sequence[StoredItem]) -> None:
    last = select(func.max(response_items.c.position)).where(response_items.c.response_seq == seq)
    start = connection.scalar(last)
    response_rows.add_items(connection, seq, output, start=0 if start is None else start + 1)


def _replace_body(connection: Connection, row: Row[Any], body: JsonMapping) -> None:
    """Replaces the body of the row. Its size includes the events, so only the difference is
    added."""
    text = encode(dict(body))
    size_bytes = responses.c.size_bytes + (len(text) - len(encode(dict(row.body))))
    values = {"status": body["status"], "body": text, "size_bytes": size_bytes}
    connection.execute(update(responses).where(responses.c.seq == row.seq).values(values))


def _last_number(connection: Connection, seq: int) -> int | None:
    last = select(func.max(response_events.c.last_number))
    number = connection.scalar(last.where(response_events.c.response_seq == seq))
    return None if number is None else int(number)


def _of(id: str) -> Select[Any]:
    columns = responses.c
    return select(
        columns.seq, columns.status, columns.body, columns.conversation_id, columns.owner
    ).where(columns.id == id)
