"""Answers to lines as rows: only ever inserted, so that no transaction waits for another."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select
from sqlalchemy import delete as delete_from

from llm_backend.store.batches.stored_batch import LineResult, TokenCounts
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.tables.batches import batch_lines

_DELETED_ROWS_PER_STATEMENT = 1000
# Each has two columns, of the 1,664 that a statement may have on PostgreSQL.
_RANGES_PER_STATEMENT = 500


def add(connection: Connection, batch_seq: int, results: Sequence[LineResult]) -> None:
    """Inserts answers; a line keeps its first one."""
    statement = insert_into(connection, batch_lines).on_conflict_do_nothing()
    rows = [
        {
            "batch_seq": batch_seq,
            "line": one.line,
            "is_error": one.is_error,
            "text": one.text,
            **asdict(one.tokens),
        }
        for one in results
    ]
    connection.execute(statement, rows)


def numbers(connection: Connection, batch_seq: int, first: int, last: int) -> set[int]:
    """Returns the numbers of the lines from `first` to `last` that have an answer."""
    is_in_range = batch_lines.c.line.between(first, last)
    return set(connection.scalars(select(batch_lines.c.line).where(_of(batch_seq), is_in_range)))


def page(
    connection: Connection, batch_seq: int, *, is_error: bool, after: int, limit: int
) -> Sequence[tuple[int, str]]:
    """Returns the numbers and texts of the answers after the line `after`."""
    follows = _of(batch_seq) & (batch_lines.c.is_error == is_error) & (batch_lines.c.line > after)
    query = select(batch_lines.c.line, batch_lines.c.text).where(follows)
    return [
        (row.line, row.text)
        for row in connection.execute(query.order_by(batch_lines.c.line).limit(limit))
    ]


def counts(connection: Connection, batch_seq: int) -> tuple[int, int]:
    """Returns the number of lines that succeeded, and of lines that failed."""
    kinds = select(batch_lines.c.is_error, func.count()).where(_of(batch_seq))
    found = {bool(row[0]): row[1] for row in connection.execute(kinds.group_by("is_error"))}
    return found.get(False, 0), found.get(True, 0)


def counts_among(
    connection: Connection, batch_seq: int, ranges: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Returns the same numbers for the lines in these ranges (first, last), by two index searches
    for each range, many in one statement."""
    if not ranges:
        return 0, 0
    if len(ranges) > _RANGES_PER_STATEMENT:
        completed, failed = counts_among(connection, batch_seq, ranges[:_RANGES_PER_STATEMENT])
        more_completed, more_failed = counts_among(
            connection, batch_seq, ranges[_RANGES_PER_STATEMENT:]
        )
        return completed + more_completed, failed + more_failed
    subqueries = [
        select(func.count())
        .where(_of(batch_seq), batch_lines.c.is_error == is_error)
        .where(batch_lines.c.line.between(first, last))
        .scalar_subquery()
        for is_error in (False, True)
        for first, last in ranges
    ]
    found = [int(count) for count in connection.execute(select(*subqueries)).one()]
    return sum(found[: len(ranges)]), sum(found[len(ranges) :])


def tokens(connection: Connection, batch_seq: int) -> TokenCounts:
    """Returns the sums of the tokens of all answers."""
    names = list(TokenCounts.__dataclass_fields__)
    sums = select(*(func.coalesce(func.sum(batch_lines.c[name]), 0).label(name) for name in names))
    row: Row[Any] = connection.execute(sums.where(_of(batch_seq))).one()
    return TokenCounts(**{name: int(getattr(row, name)) for name in names})


def delete_lines(connection: Connection, batch_seq: int) -> bool:
    """Deletes some answers; returns True if more may be left."""
    some_lines = select(batch_lines.c.line).where(_of(batch_seq)).limit(_DELETED_ROWS_PER_STATEMENT)
    is_deleted = _of(batch_seq) & batch_lines.c.line.in_(some_lines.scalar_subquery())
    deleted = connection.execute(delete_from(batch_lines).where(is_deleted))
    return deleted.rowcount == _DELETED_ROWS_PER_STATEMENT


def _of(batch_seq: int) -> ColumnElement[bool]:
    return batch_lines.c.batch_seq == batch_seq
