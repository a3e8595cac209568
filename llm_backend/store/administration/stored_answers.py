"""Stored answers of idempotent requests; a claim ensures that only one server makes each answer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, Row, delete, func, select, update

from llm_backend.store.database.database import Database
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.tables.administration import stored_answers

_BATCH_ROWS = 100  # rows that are deleted in one transaction


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """A complete answer as it was sent; headers are Latin-1."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class AnswerClaim:
    """A claimed name: the digest of its request, and the answer once it is complete. The claim,
    later the answer, expires at `until_at`."""

    digest: str
    answer: StoredAnswer | None
    until_at: int


class StoredAnswers:
    """The answers of a database. Times are in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(
        self, name: str, *, digest: str, holder: str, now: int, until: int
    ) -> AnswerClaim | None:
        """Claims the name for the holder until this time. Returns None if that succeeds, else the
        unexpired claim."""
        claim = partial(_claim, name=name, digest=digest, holder=holder, now=now, until=until)
        return await self._database.write(claim)

    async def store(self, name: str, *, holder: str, answer: StoredAnswer, until: int) -> None:
        """Stores the complete answer until this time. Does nothing if another holder has claimed
        the name."""
        await self._database.write(_store, name=name, holder=holder, answer=answer, until=until)

    async def free(self, name: str, *, holder: str) -> None:
        """Releases the holder's claim without an answer."""
        await self._database.write(_free, name=name, holder=holder)

    async def renew(self, holders: Collection[str], *, until: int) -> None:
        """Extends the claims of these holders until this time."""
        await self._database.write(_renew, holders=holders, until=until)

    async def expire(self, *, now: int, limit_bytes: int) -> None:
        """Deletes expired answers, then the oldest ones until `limit_bytes` hold the rest."""
        await self._database.write(_delete_expired, now=now)
        while await self._database.write(_delete_oldest, limit_bytes=limit_bytes):
            pass


def _claim(
    connection: Connection, name: str, digest: str, holder: str, now: int, until: int
) -> AnswerClaim | None:
    values = {"digest": digest, "holder": holder, "until_at": until, "size_bytes": 0}
    new = insert_into(connection, stored_answers).values(name=name, **values)
    if connection.execute(new.on_conflict_do_nothing()).rowcount == 1:
        return None
    this = stored_answers.c.name == name
    row = connection.execute(select(stored_answers).where(this).with_for_update()).first()
    if row is None:  # released in between
        return _claim(connection, name, digest, holder, now, until)
    if row.until_at > now:
        return AnswerClaim(digest=row.digest, answer=_answer(row), until_at=row.until_at)
    nothing = {"status": None, "headers": None, "body": None}
    connection.execute(update(stored_answers).where(this).values(**values, **nothing))
    return None


def _answer(row: Row[tuple[object, ...]]) -> StoredAnswer | None:
    if row.status is None:
        return None
    headers = [(name, value) for name, value in row.headers]
    return StoredAnswer(status=row.status, headers=headers, body=row.body)


def _store(
    connection: Connection, name: str, holder: str, answer: StoredAnswer, until: int
) -> None:
    values = {
        "until_at": until,
        "status": answer.status,
        "headers": [list(pair) for pair in answer.headers],
        "body": answer.body,
        "size_bytes": len(answer.body),
    }
    this = (stored_answers.c.name == name) & (stored_answers.c.holder == holder)
    connection.execute(update(stored_answers).where(this).values(values))


def _free(connection: Connection, name: str, holder: str) -> None:
    this = (stored_answers.c.name == name) & (stored_answers.c.holder == holder)
    connection.execute(delete(stored_answers).where(this))


def _renew(connection: Connection, holders: Collection[str], until: int) -> None:
    theirs = stored_answers.c.holder.in_(holders) & stored_answers.c.status.is_(None)
    connection.execute(update(stored_answers).where(theirs).values(until_at=until))


def _delete_expired(connection: Connection, now: int) -> None:
    connection.execute(delete(stored_answers).where(stored_answers.c.until_at <= now))


def _delete_oldest(connection: Connection, limit_bytes: int) -> bool:
    """Deletes some of the oldest answers over the limit. Returns True if more must be deleted."""
    total_bytes = connection.scalar(select(func.sum(stored_answers.c.size_bytes))) or 0
    excess_bytes = total_bytes - limit_bytes
    columns = select(stored_answers.c.name, stored_answers.c.size_bytes)
    oldest = columns.where(stored_answers.c.size_bytes > 0).order_by(stored_answers.c.until_at)
    names = []
    for row in connection.execute(oldest.limit(_BATCH_ROWS)) if excess_bytes > 0 else ():
        if excess_bytes > 0:
            names.append(row.name)
            excess_bytes -= row.size_bytes
    connection.execute(delete(stored_answers).where(stored_answers.c.name.in_(names)))
    return bool(names) and excess_bytes > 0
