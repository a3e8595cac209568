"""Batches as rows: SQL statements, each function one unit of work on a connection.

Each change of state locks the batch's row, and jobs after it, until the transaction ends. So if two
jobs finish the last lines at the same time, the second one sees that no other is left.

While a batch is in progress, its row counts the lines whose jobs are finished; each finished job
adds its own. Answers are only inserted, never changed, so no transaction waits for another.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from llm_backend.json_types import JsonMapping
from llm_backend.store.batches import line_rows
from llm_backend.store.batches.stored_batch import (
    BATCH,
    BATCH_LINES,
    BatchEnd,
    BatchStatus,
    LineResult,
    Lines,
    StoredBatch,
    TokenCounts,
)
from llm_backend.store.errors import BatchEnded, Missing
from llm_backend.store.files import file_rows
from llm_backend.store.jobs import Job, NewJob, job_rows
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.objects import Content
from llm_backend.store.row_values import find_row, value_from
from llm_backend.store.tables.batches import batches
from llm_backend.store.webhooks import delivery_rows

_EXPIRED_BATCHES_PER_CALL = 100


def add(connection: Connection, batch: StoredBatch, now: float) -> None:
    """Inserts the batch, and the job that reads its input. Raises `Missing` for the file."""
    file_rows.lock(connection, batch.input_file_id, int(now))
    row = {
        "id": batch.id,
        "created_at": batch.created_at,
        "owner": batch.owner,
        "key_id": batch.key_id,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "metadata": None if batch.metadata is None else dict(batch.metadata),
        "output_lifetime_s": batch.output_lifetime_s,
        "status": batch.status.value,
        "expires_at": batch.expires_at,
        "times": {},
        "errors": [],
        "total": 0,
        "completed": 0,
        "failed": 0,
    }
    connection.execute(insert(batches), row)
    job_rows.add(connection, [NewJob(kind=BATCH, subject=batch.id)], now=now)


def get(connection: Connection, id: str) -> StoredBatch:
    """Returns the batch with this id, with its counts so far. Raises `Missing`."""
    return _batch(connection, _row(connection, id))


def find(connection: Connection, request: PageRequest) -> Page[StoredBatch]:
    """Returns a page of all batches. Raises `UnknownCursor`."""
    bound = cursor_keys(request, lambda id: _sort_keys(connection, id))
    keys = (batches.c.created_at, batches.c.seq)
    rows, has_more = fetch(connection, select(batches), request, keys=keys, bound=bound)
    return Page(items=[_batch(connection, row) for row in rows], has_more=has_more)


def work(connection: Connection, id: str) -> tuple[StoredBatch, Content]:
    """Returns the batch and the content of its input, even if that file has expired. Raises
    `Missing` for the batch, or for its file."""
    row = _row(connection, id)
    return _batch(connection, row), file_rows.content(connection, row.input_file_id)


def begin(
    connection: Connection,
    job: Job,
    chunks: Sequence[Lines],
    *,
    total: int,
    model: str | None,
    now: float,
) -> bool:
    """Starts the batch, whose input is valid, and adds the jobs of its lines. Returns False if it
    was cancelled meanwhile. Raises `LeaseLost`."""
    row = _lock_row(connection, job.subject)
    job_rows.lock(connection, job)
    if row.status != BatchStatus.VALIDATING.value:
        return False
    _move(connection, row, BatchStatus.IN_PROGRESS, now, total=total, model=model)
    added = [
        NewJob(kind=BATCH_LINES, subject=job.subject, details=asdict(chunk)) for chunk in chunks
    ]
    job_rows.add(connection, added, now=now)
    return True


def fail(
    connection: Connection,
    job: Job,
    errors: Sequence[JsonMapping],
    *,
    now: float,
    delivery_limit: int,
) -> int:
    """Ends the batch as failed, for an invalid input or an error of the server, and its job;
    returns the number of deliveries of webhooks that were beyond `delivery_limit`. Raises
    `LeaseLost`, `BatchEnded`."""
    row = _lock_open_row(connection, job.subject)
    job_rows.finish(connection, job)
    row = _move(connection, row, BatchStatus.FAILED, now, errors=[dict(one) for one in errors])
    return _add_deliveries(connection, row, now=now, limit=delivery_limit)


def record(connection: Connection, id: str, results: Sequence[LineResult]) -> BatchStatus:
    """Stores answers; returns the batch's state. Raises `Missing`."""
    row = connection.execute(
        select(batches.c.seq, batches.c.status).where(batches.c.id == id)
    ).first()
    if row is None:
        raise Missing(id)
    status = BatchStatus(row.status)
    if not status.is_end:
        line_rows.add(connection, row.seq, results)
    return status


def numbers(connection: Connection, id: str, first: int, last: int) -> set[int]:
    """Returns the numbers of the lines in this range that have an answer. Raises `Missing`."""
    return line_rows.numbers(connection, _row(connection, id).seq, first, last)


def finish_lines(
    connection: Connection, job: Job, *, errors: Sequence[JsonMapping] = (), now: float
) -> None:
    """Finishes the job of some lines, and stores `errors` of the batch, if any. If no other job is
    left, adds the one that writes the output.

    Raises `LeaseLost`.
    """
    row = _lock_row(connection, job.subject)
    job_rows.finish(connection, job)
    completed, failed = line_rows.counts_among(connection, row.seq, [_line_range(job.details)])
    _set_counts(connection, row, row.completed + completed, row.failed + failed)
    if errors:
        change = update(batches).where(batches.c.seq == row.seq)
        connection.execute(change.values(errors=[dict(one) for one in errors]))
    _end_if_idle(connection, row, now)


def cancel(connection: Connection, id: str, *, now: float) -> StoredBatch:
    """Cancels the batch: none of its lines is started any more. Raises `Missing`, `BatchEnded`."""
    row = _lock_open_row(connection, id)
    status = BatchStatus(row.status)
    if status is not BatchStatus.CANCELLING:
        row = _move(connection, row, BatchStatus.CANCELLING, now)
        job_rows.remove_not_running(connection, BATCH_LINES, id, now=now)
        if status is BatchStatus.IN_PROGRESS:  # in other states its job of `BATCH` ends it
            _end_if_idle(connection, row, now)
    return _batch(connection, row)


def expire(connection: Connection, *, now: float) -> None:
    """Removes the jobs of expired batches that have not started, of some batches in one call."""
    has_expired = (batches.c.status == BatchStatus.IN_PROGRESS.value) & (
        batches.c.expires_at <= now
    )
    expired = select(batches).where(has_expired).order_by(batches.c.expires_at)
    oldest = expired.limit(_EXPIRED_BATCHES_PER_CALL)
    for row in connection.execute(oldest.with_for_update(skip_locked=True, key_share=True)).all():
        job_rows.remove_not_running(connection, BATCH_LINES, row.id, now=now)
        completed, failed = line_rows.counts(connection, row.seq)
        # a running job adds its own answers to the counts when it finishes
        running_completed, running_failed = _count_answers_of_unfinished_jobs(connection, row)
        _set_counts(connection, row, completed - running_completed, failed - running_failed)
        _end_if_idle(connection, row, now)


def line_page(
    connection: Connection, id: str, *, is_error: bool, after: int, limit: int
) -> Sequence[tuple[int, str]]:
    """Returns the numbers and texts of the answers after the line `after`."""
    seq = _row(connection, id).seq
    return line_rows.page(connection, seq, is_error=is_error, after=after, limit=limit)


def end(
    connection: Connection, job: Job, ended: BatchEnd, *, now: float, delivery_limit: int
) -> int:
    """Ends the batch, with these files; returns the number of deliveries of webhooks that were
    beyond `delivery_limit`. Raises `LeaseLost`, `BatchEnded`, `BlobGone`."""
    row = _lock_open_row(connection, job.subject)
    job_rows.lock(connection, job)
    row = _move(
        connection,
        row,
        ended.status,
        now,
        completed=ended.completed,
        failed=ended.failed,
        usage=asdict(line_rows.tokens(connection, row.seq)),
        output_file_id=ended.output and ended.output.id,
        error_file_id=ended.error and ended.error.id,
    )
    for file in (ended.output, ended.error):
        if file is not None:
            file_rows.add(connection, file)
    return _add_deliveries(connection, row, now=now, limit=delivery_limit)


def delete_lines(connection: Connection, id: str) -> bool:
    """Deletes some answers of a batch that has ended; returns True if more may be left."""
    return line_rows.delete_lines(connection, _row(connection, id).seq)


def _set_counts(connection: Connection, row: Row[Any], completed: int, failed: int) -> None:
    """Stores the counts of the lines that no job processes any more."""
    change = update(batches).where(batches.c.seq == row.seq)
    connection.execute(change.values(completed=completed, failed=failed))


def _count_answers_of_unfinished_jobs(connection: Connection, row: Row[Any]) -> tuple[int, int]:
    """Counts the answered lines of unfinished jobs, which are running, or which a stopped process
    has given back."""
    unfinished = job_rows.details(connection, BATCH_LINES, row.id)
    ranges = _merge_adjacent([_line_range(one) for one in unfinished])
    return line_rows.counts_among(connection, row.seq, ranges)


def _merge_adjacent(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins ranges that follow each other without a gap: the jobs that have not started then cost
    one index search."""
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and merged[-1][1] + 1 == first:
            first, _ = merged.pop()
        merged.append((first, last))
    return merged


def _line_range(details: JsonMapping) -> tuple[int, int]:
    lines = Lines(**details)
    return lines.first_line, lines.last_line


def _end_if_idle(connection: Connection, row: Row[Any], now: float) -> None:
    """Adds the job that ends the batch, unless jobs of its lines are left."""
    if job_rows.are_any(connection, BATCH_LINES, row.id):
        return
    if row.status == BatchStatus.IN_PROGRESS.value:
        _move(connection, row, BatchStatus.FINALIZING, now)
    job_rows.add(connection, [NewJob(kind=BATCH, subject=row.id)], now=now)


def _move(
    connection: Connection, row: Row[Any], status: BatchStatus, now: float, **values: Any
) -> Row[Any]:
    """Sets the batch's next state, and returns its row."""
    values |= {"status": status.value, "times": {**row.times, f"{status.value}_at": int(now)}}
    change = update(batches).where(batches.c.seq == row.seq).values(**values)
    return connection.execute(change.returning(*batches.c)).one()


def _add_deliveries(connection: Connection, row: Row[Any], *, now: float, limit: int) -> int:
    """Adds the end of the batch to the deliveries of webhooks."""
    type = f"batch.{row.status}"
    return delivery_rows.add(connection, type, row.id, owner=row.owner, now=now, limit=limit)


def _row(connection: Connection, id: str, *, is_locked: bool = False) -> Row[Any]:
    query = select(batches).where(batches.c.id == id)
    if is_locked:
        query = query.with_for_update(key_share=True)  # answers may be inserted meanwhile
    return find_row(connection, query, id)


def _lock_row(connection: Connection, id: str) -> Row[Any]:
    return _row(connection, id, is_locked=True)


def _lock_open_row(connection: Connection, id: str) -> Row[Any]:
    """Locks and returns the row of a batch that has not ended. Raises `Missing`, `BatchEnded`."""
    row = _lock_row(connection, id)
    if BatchStatus(row.status).is_end:
        raise BatchEnded(id, row.status)
    return row


def _sort_keys(connection: Connection, id: str) -> tuple[int, int]:
    row = _row(connection, id)
    return row.created_at, row.seq


def _batch(connection: Connection, row: Row[Any]) -> StoredBatch:
    status = BatchStatus(row.status)
    completed, failed = row.completed, row.failed
    if status is BatchStatus.IN_PROGRESS:
        running_completed, running_failed = _count_answers_of_unfinished_jobs(connection, row)
        completed, failed = completed + running_completed, failed + running_failed
    elif not status.is_end and status is not BatchStatus.VALIDATING:
        # As the output files, these counts are taken from the stored answers.
        completed, failed = line_rows.counts(connection, row.seq)
    usage = None if row.usage is None else TokenCounts(**row.usage)
    return value_from(
        row, StoredBatch, status=status, completed=completed, failed=failed, usage=usage
    )
