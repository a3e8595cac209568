"""Requests at once that several servers share: each holds some of a scope's by a lease."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from llm_backend.store.administration.tables import running
from llm_backend.store.database import Database
from llm_backend.store.upsert import insert_into

__all__ = ["Exchange", "Running"]

_NOBODY = ""
_SCOPE_KEPT_S = 24 * 60 * 60  # the row of a scope that nobody asks for


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """So many of a scope are given back, and so many wanted, of the `most` that there are."""

    scope: str
    given: int = 0
    wanted: int = 0
    most: int = 0


class Running:
    """What is held of all scopes, in a database. Times are in unix seconds.

    Whoever is a holder does one of these after the other: so no two transactions wait for each
    other.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def exchange(
        self, exchanges: Iterable[Exchange], *, holder: str, now: int, until: int
    ) -> Mapping[str, int]:
        """Of each scope as many as all together may have; they are the holder's until then."""
        ordered = sorted(exchanges, key=lambda one: one.scope)  # everybody locks in this order
        work = partial(_exchange, exchanges=ordered, holder=holder, now=now, until=until)
        return await self._database.write(work)

    async def renew(self, holder: str, *, until: int) -> None:
        """All that the holder has is his until then."""
        await self._database.write(partial(_renew, holder=holder, until=until))

    async def leave(self, holder: str) -> None:
        """He has none any more."""
        await self._database.write(partial(_leave, holder=holder))

    async def forget(self, *, now: int) -> None:
        """Forgets what is over."""
        await self._database.write(partial(_forget, now=now))


def _exchange(
    connection: Connection, exchanges: Iterable[Exchange], holder: str, now: int, until: int
) -> Mapping[str, int]:
    for one in exchanges:
        if one.given:
            _give_back(connection, one, holder)
    return {
        one.scope: _take(connection, one, holder, now, until) for one in exchanges if one.wanted
    }


def _give_back(connection: Connection, given: Exchange, holder: str) -> None:
    this, less = _is(given.scope, holder), running.c.number - given.given
    connection.execute(update(running).where(this).values(number=less))
    connection.execute(delete(running).where(this, running.c.number <= 0))


def _take(connection: Connection, wanted: Exchange, holder: str, now: int, until: int) -> int:
    _put(connection, wanted.scope, _NOBODY, 0, now + _SCOPE_KEPT_S)  # ours until the end of this
    alive = (running.c.scope == wanted.scope) & (running.c.until_at > now)
    held = connection.scalar(select(func.sum(running.c.number)).where(alive)) or 0
    taken = max(0, min(wanted.wanted, wanted.most - int(held)))
    if taken:
        _put(connection, wanted.scope, holder, taken, until)
    return taken


def _put(connection: Connection, scope: str, holder: str, number: int, until: int) -> None:
    """So many more, all of them until then."""
    insert = insert_into(connection, running)
    values = {"scope": scope, "holder": holder, "number": number, "until_at": until}
    more = {"number": running.c.number + insert.excluded.number, "until_at": until}
    key = ["scope", "holder"]
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=more), values)


def _renew(connection: Connection, holder: str, until: int) -> None:
    connection.execute(update(running).where(running.c.holder == holder).values(until_at=until))


def _leave(connection: Connection, holder: str) -> None:
    connection.execute(delete(running).where(running.c.holder == holder))


def _forget(connection: Connection, now: int) -> None:
    connection.execute(delete(running).where(running.c.until_at <= now))


def _is(scope: str, holder: str) -> ColumnElement[bool]:
    return (running.c.scope == scope) & (running.c.holder == holder)
