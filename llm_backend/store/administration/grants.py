"""Rate limits that servers share: each server reserves parts of a window's amount until it is used
up. The same table has claims: the first server to claim an event, such as a spend alert, reports
it."""

from sqlalchemy import Connection, delete, select, update

from llm_backend.durations import DAY_S
from llm_backend.store.database.database import Database
from llm_backend.store.database.upsert import add_up, insert_into
from llm_backend.store.tables.administration import grants

KEPT_S = 2 * DAY_S  # longer than any window


class Grants:
    """Amounts of limits that are granted to servers, in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(
        self, scope: str, window_at: int, *, requested: int, limit: int, minimum: int = 0
    ) -> int:
        """Reserves up to `requested` of the rest of `limit`, or nothing if less than `minimum` is
        left; returns the reserved amount."""
        return await self._database.write(
            _take,
            scope=scope,
            window_at=window_at,
            requested=requested,
            limit=limit,
            minimum=minimum,
        )

    async def refund(self, scope: str, window_at: int, amount: int) -> None:
        """Returns an unused amount of this window, so that other servers can take it."""
        await self._database.write(_refund, scope=scope, window_at=window_at, amount=amount)

    async def claim(self, scope: str, ends_at: int) -> bool:
        """True for the first call with this scope and this end of its period, of all servers."""
        return await self._database.write(_claim, scope=scope, ends_at=ends_at)


def _take(
    connection: Connection, scope: str, window_at: int, requested: int, limit: int, minimum: int
) -> int:
    row = {"scope": scope, "window_at": window_at, "granted": 0}
    add_up(connection, grants, [row])  # creates the row, and locks it until the transaction ends
    this = (grants.c.scope == scope) & (grants.c.window_at == window_at)
    granted: int = connection.execute(select(grants.c.granted).where(this)).scalar_one()
    taken = max(0, min(requested, limit - granted))
    if taken < minimum:
        taken = 0
    if granted == 0:
        connection.execute(delete(grants).where(grants.c.window_at < window_at - KEPT_S))
    if taken:
        connection.execute(update(grants).where(this).values(granted=granted + taken))
    return taken


def _refund(connection: Connection, scope: str, window_at: int, amount: int) -> None:
    this = (grants.c.scope == scope) & (grants.c.window_at == window_at)
    connection.execute(update(grants).where(this).values(granted=grants.c.granted - amount))


def _claim(connection: Connection, scope: str, ends_at: int) -> bool:
    row = {"scope": scope, "window_at": ends_at, "granted": 1}
    insert = insert_into(connection, grants).values(row).on_conflict_do_nothing()
    if connection.execute(insert).rowcount == 0:
        return False
    of_earlier_periods = (grants.c.scope == scope) & (grants.c.window_at < ends_at)
    connection.execute(delete(grants).where(of_earlier_periods))
    return True
