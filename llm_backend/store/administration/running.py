"""Requests at once that several servers share: each holds some of a scope's by a lease."""

from functools import partial

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from llm_backend.store.administration.tables import running
from llm_backend.store.database import Database
from llm_backend.store.upsert import add_up

__all__ = ["Running"]

_NOBODY = ""
_SCOPE_KEPT_S = 24 * 60 * 60  # the row of a scope that nobody asks for


class Running:
    """What is held of all scopes, in a database. Times are in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(
        self, scope: str, *, holder: str, wanted: int, most: int, now: int, until: int
    ) -> int:
        """As many of those wanted as all together may have; they are the holder's until then."""
        take = partial(_take, scope=scope, holder=holder, wanted=wanted, most=most)
        return await self._database.write(partial(take, now=now, until=until))

    async def give_back(self, scope: str, *, holder: str, number: int) -> None:
        """So many are there for others again."""
        await self._database.write(partial(_give_back, scope=scope, holder=holder, number=number))

    async def renew(self, holder: str, *, until: int) -> None:
        """All that the holder has is his until then."""
        await self._database.write(partial(_renew, holder=holder, until=until))

    async def leave(self, holder: str) -> None:
        """He has none any more."""
        await self._database.write(partial(_leave, holder=holder))

    async def forget(self, *, now: int) -> None:
        """Forgets what is over."""
        await self._database.write(partial(_forget, now=now))


def _take(
    connection: Connection, scope: str, holder: str, wanted: int, most: int, now: int, until: int
) -> int:
    lock = {"scope": scope, "holder": _NOBODY, "number": 0, "until_at": 0}
    add_up(connection, running, [lock])  # it is there now, and ours until the transaction ends
    nobody = _is(scope, _NOBODY)
    connection.execute(update(running).where(nobody).values(until_at=now + _SCOPE_KEPT_S))
    of_scope = running.c.scope == scope
    connection.execute(delete(running).where(of_scope, running.c.until_at <= now))
    held = connection.scalar(select(func.sum(running.c.number)).where(of_scope)) or 0
    taken = max(0, min(wanted, most - int(held)))
    if taken:
        row = {"scope": scope, "holder": holder, "number": taken, "until_at": 0}
        add_up(connection, running, [row])
        connection.execute(update(running).where(_is(scope, holder)).values(until_at=until))
    return taken


def _give_back(connection: Connection, scope: str, holder: str, number: int) -> None:
    less = running.c.number - number
    connection.execute(update(running).where(_is(scope, holder)).values(number=less))
    connection.execute(delete(running).where(_is(scope, holder), running.c.number <= 0))


def _renew(connection: Connection, holder: str, until: int) -> None:
    connection.execute(update(running).where(running.c.holder == holder).values(until_at=until))


def _leave(connection: Connection, holder: str) -> None:
    connection.execute(delete(running).where(running.c.holder == holder))


def _forget(connection: Connection, now: int) -> None:
    connection.execute(delete(running).where(running.c.until_at <= now))


def _is(scope: str, holder: str) -> ColumnElement[bool]:
    return (running.c.scope == scope) & (running.c.holder == holder)
