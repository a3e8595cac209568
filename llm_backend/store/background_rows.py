"""Responses that are answered in the background, as rows: each function one unit of work.

A response and the job that answers it are stored in one transaction, and so are its end and that of
the job. Its events are rows of several each, as lines of text; `last_number` is the number of a
row's last one, and numbers are contiguous.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from llm_backend.store import conversation_rows, response_rows
from llm_backend.store.bodies import encoded, is_text
from llm_backend.store.errors import Missing, QueueFull
from llm_backend.store.jobs import Job, NewJob, job_rows
from llm_backend.store.named import row_named
from llm_backend.store.stored_chat import Body
from llm_backend.store.stored_response import Events, Standing, StoredItem, StoredResponse
from llm_backend.store.tables import response_events, response_items, responses

__all__ = [
    "JOB",
    "add",
    "append",
    "begin",
    "cancel",
    "events",
    "finish",
    "forget",
    "keep_output",
    "tells",
]

JOB = "response"
ACTIVE = response_rows.ACTIVE


def add(
    connection: Connection,
    response: StoredResponse,
    details: Body,
    told: Events,
    *,
    now: float,
    limit: int,
) -> None:
    """Insert the response with its input, its first events, and the job that answers it. Raises
    `QueueFull` where there are so many already."""
    if job_rows.number(connection, JOB, limit) >= limit:
        raise QueueFull(limit)
    seq = response_rows.add(connection, response)
    _tell(connection, seq, told)
    job_rows.add(connection, [NewJob(kind=JOB, subject=response.id, details=details)], now=now)


def begin(connection: Connection, job: Job) -> Standing | None:
    """The response is being answered; how it stands. None for one that has ended or is gone."""
    job_rows.hold(connection, job)
    row = connection.execute(_of(job.subject).with_for_update()).first()
    if row is None or row.status not in ACTIVE:
        return None
    _put(connection, row, {**row.body, "status": "in_progress"})
    return Standing(
        body=row.body,
        input=response_rows.input_items(connection, row.seq),
        last_number=_last_number(connection, row.seq),
    )


def append(connection: Connection, job: Job, told: Events) -> None:
    """Append events. Raises `LeaseLost`, and `Missing` if the response is gone."""
    job_rows.hold(connection, job)
    _tell(connection, _seq(connection, job.subject), told)


def finish(
    connection: Connection, job: Job, body: Body, output: Sequence[StoredItem], told: Events
) -> None:
    """The response has ended so, and its job with it; said in its conversation, too.

    Raises `LeaseLost`, and `Missing` if the response or its conversation is gone.
    """
    job_rows.finish(connection, job)
    row = connection.execute(_of(job.subject).with_for_update()).first()
    if row is None:
        raise Missing(job.subject)
    _put(connection, row, body)
    conversation_id = row.conversation_id if response_rows.is_said(body["status"]) else None
    if conversation_id is not None:
        conversation_rows.hold(connection, conversation_id)
    _hold(connection, row.seq, output)
    _tell(connection, row.seq, told)
    if conversation_id is not None:
        said = [*response_rows.input_items(connection, row.seq), *output]
        conversation_rows.add_items(connection, conversation_id, said)


def cancel(connection: Connection, id: str, *, ending: Callable[[int], str]) -> Body:
    """End it as cancelled, unless it has ended; the response as it is then. `ending` makes the last
    of its events, if it has any, of that one's number. Raises `Missing`."""
    _remove_job(connection, id)
    row = connection.execute(_of(id).with_for_update()).first()
    if row is None:
        raise Missing(id)
    body: Body = row.body
    if row.status not in ACTIVE:
        return body
    cancelled = {**body, "status": "cancelled"}
    _put(connection, row, cancelled)
    last_number = _last_number(connection, row.seq)
    if last_number is not None:
        number = last_number + 1
        _tell(connection, row.seq, Events(lines=(ending(number),), last_number=number))
    return cancelled


def keep_output(connection: Connection, id: str, output: Sequence[StoredItem]) -> None:
    """What had been said until the response was cancelled; nothing for one that was not."""
    row = connection.execute(_of(id).with_for_update()).first()
    if row is None or row.status != "cancelled" or row.body["output"]:
        return
    _put(connection, row, {**row.body, "output": [dict(one.item) for one in output]})
    _hold(connection, row.seq, output)


def forget(connection: Connection, id: str) -> None:
    """Delete the response, and stop answering it. Raises `Missing`."""
    _remove_job(connection, id)
    response_rows.forget(connection, id)


def events(connection: Connection, id: str, after: int, limit: int) -> Events | None:
    """Events behind the one of this number, of up to so many rows; None once there will be none.

    Raises `Missing`.
    """
    row = row_named(connection, _of(id), id)
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


def tells(connection: Connection, id: str) -> bool:
    """Whether events are kept of this response. Raises `Missing`."""
    return _last_number(connection, _seq(connection, id)) is not None


def _remove_job(connection: Connection, id: str) -> None:
    """Before the response is touched: whoever answers it locks the two in this order."""
    if not is_text(id):
        raise Missing(id)
    job_rows.remove(connection, JOB, id)


def _tell(connection: Connection, seq: int, told: Events) -> None:
    if told.lines:
        told_text = "\n".join(told.lines)
        row = {"response_seq": seq, "last_number": told.last_number, "events": told_text}
        connection.execute(insert(response_events), row)
        grown = responses.c.size_bytes + len(told_text)
        this = update(responses).where(responses.c.seq == seq)
        connection.execute(this.values(size_bytes=grown))


def _hold(connection: Connection, seq: int, output: Sequence[StoredItem]) -> None:
    last = select(func.max(response_items.c.position)).where(response_items.c.response_seq == seq)
    start = connection.scalar(last)
    response_rows.hold_items(connection, seq, output, start=0 if start is None else start + 1)


def _put(connection: Connection, row: Row[tuple[int, str, Body, str | None]], body: Body) -> None:
    """Put `body` in place of the row's; its size is that of its events, too."""
    text = encoded(dict(body))
    size_bytes = responses.c.size_bytes + (len(text) - len(encoded(dict(row.body))))
    values = {"status": body["status"], "body": text, "size_bytes": size_bytes}
    connection.execute(update(responses).where(responses.c.seq == row.seq).values(values))


def _last_number(connection: Connection, seq: int) -> int | None:
    last = select(func.max(response_events.c.last_number))
    number = connection.scalar(last.where(response_events.c.response_seq == seq))
    return None if number is None else int(number)


def _seq(connection: Connection, id: str) -> int:
    found = select(responses.c.seq).where(responses.c.id == id)
    return int(row_named(connection, found, id).seq)


def _of(id: str) -> Select[tuple[int, str, Body, str | None]]:
    return select(
        responses.c.seq, responses.c.status, responses.c.body, responses.c.conversation_id
    ).where(responses.c.id == id)
