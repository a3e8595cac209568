"""Concurrency limits that servers share: each server leases a part of a scope's permits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from llm_backend.durations import DAY_S
from llm_backend.store.database.database import Database
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.tables.administration import concurrency_leases

_LOCK_HOLDER = ""  # holder of a scope's lock row, which each change of the scope locks first
_LOCK_ROW_LIFETIME_S = DAY_S  # of an unused scope


@dataclass(frozen=True, kw_only=True)
class LeaseChange:
    """A change of a lease: for one scope, `returned` permits are given back, then up to `requested`
    are taken; all servers together hold at most `limit`."""

    scope: str
    returned: int = 0
    requested: int = 0
    limit: int = 0


class ConcurrencyLeases:
    """Leases of permits in a database. Times are in unix seconds.

    A holder must not overlap its calls: their transactions could deadlock.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(
        self, changes: Iterable[LeaseChange], *, holder: str, now: int, until: int
    ) -> Mapping[str, int]:
        """Applies the changes; returns how many permits of each scope were taken. Their leases end
        at `until`."""
        ordered = sorted(changes, key=lambda one: one.scope)  # one order of locks for all
        return await self._database.write(
            _apply, changes=ordered, holder=holder, now=now, until=until
        )

    async def renew(self, holder: str, numbers: Mapping[str, int], *, until: int) -> None:
        """Extends all leases of the holder to `until`; `numbers` has the permits of each scope.
        Expired and deleted leases are restored, as requests may still use their permits."""
        await self._database.write(_renew, holder=holder, numbers=numbers, until=until)

    async def release_all(self, holder: str) -> None:
        """Releases all leases of the holder."""
        await self._database.write(_release_all, holder=holder)

    async def delete_expired(self, *, now: int) -> None:
        """Deletes the expired leases."""
        await self._database.write(_delete_expired, now=now)


def _apply(
    connection: Connection, changes: Iterable[LeaseChange], holder: str, now: int, until: int
) -> Mapping[str, int]:
    for one in changes:
        if one.returned:
            _release(connection, one, holder)
    return {
        one.scope: _take(connection, one, holder, now, until) for one in changes if one.requested
    }


def _release(connection: Connection, change: LeaseChange, holder: str) -> None:
    this, less = _lease_of(change.scope, holder), concurrency_leases.c.number - change.returned
    connection.execute(update(concurrency_leases).where(this).values(number=less))
    connection.execute(delete(concurrency_leases).where(this, concurrency_leases.c.number <= 0))


def _take(connection: Connection, change: LeaseChange, holder: str, now: int, until: int) -> int:
    _upsert(connection, change.scope, _LOCK_HOLDER, 0, now + _LOCK_ROW_LIFETIME_S)
    alive = (concurrency_leases.c.scope == change.scope) & (concurrency_leases.c.until_at > now)
    held = connection.scalar(select(func.sum(concurrency_leases.c.number)).where(alive)) or 0
    taken = max(0, min(change.requested, change.limit - int(held)))
    if taken:
        _upsert(connection, change.scope, holder, taken, until)
    return taken


def _upsert(
    connection: Connection,
    scope: str,
    holder: str,
    number: int,
    until: int,
    *,
    is_added: bool = True,
) -> None:
    """Stores the lease of a holder. `number` is added to the permits of its row, or replaces
    them."""
    insert = insert_into(connection, concurrency_leases)
    values = {"scope": scope, "holder": holder, "number": number, "until_at": until}
    new = insert.excluded.number
    changed = {
        "number": concurrency_leases.c.number + new if is_added else new,
        "until_at": until,
    }
    key = ["scope", "holder"]
    connection.execute(insert.on_conflict_do_update(index_elements=key, set_=changed), values)


def _renew(connection: Connection, holder: str, numbers: Mapping[str, int], until: int) -> None:
    obsolete = concurrency_leases.c.scope.not_in(numbers)
    connection.execute(
        delete(concurrency_leases).where(concurrency_leases.c.holder == holder, obsolete)
    )
    for scope, number in sorted(numbers.items()):
        _upsert(connection, scope, holder, number, until, is_added=False)


def _release_all(connection: Connection, holder: str) -> None:
    connection.execute(delete(concurrency_leases).where(concurrency_leases.c.holder == holder))


def _delete_expired(connection: Connection, now: int) -> None:
    connection.execute(delete(concurrency_leases).where(concurrency_leases.c.until_at <= now))


def _lease_of(scope: str, holder: str) -> ColumnElement[bool]:
    return (concurrency_leases.c.scope == scope) & (concurrency_leases.c.holder == holder)
