"""Deferred usage: of work that upstreams continue after their answers, counted when they report
it."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, tuple_

from llm_backend.store.administration.usage import Tokens, UsageKey, add_usage
from llm_backend.store.database.database import Database
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.tables.administration import deferred_usage
from llm_backend.store.text_checks import check_texts

_KEY_COLUMNS = [name for name in UsageKey._fields if name != "minute_at"]


@dataclass(frozen=True, kw_only=True)
class DeferredUsageRow:
    """Deferred usage under an upstream's id. The usage counts under the dimensions of its `key`,
    but in the minute in which the upstream reports it. `input_tokens` and `output_tokens` are
    counted already."""

    id: str
    key: UsageKey
    input_tokens: int = 0
    output_tokens: int = 0


class DeferredUsageStore:
    """The deferred usage of a database. Times are in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, usage: DeferredUsageRow) -> None:
        """Stores deferred usage; durable on return. Does nothing for a known id. Raises
        `Unstorable` for an id that no column can store."""
        check_texts(usage.id, *(str(value) for value in usage.key))
        await self._database.write(_add, usage=usage)

    async def charge(self, id: str, total: Tokens, *, minute_at: int) -> bool:
        """Adds the part of `total` that is not counted yet to the usage of the minute `minute_at`,
        and deletes the id, in one transaction. Returns True if the id was known."""
        check_texts(id)
        return await self._database.write(_charge, id=id, total=total, minute_at=minute_at)

    async def delete_old(self, *, before: int, limit: int) -> None:
        """Deletes the usage that began before the time `before`, and the oldest rows beyond
        `limit`."""
        await self._database.write(_delete_old, before=before, limit=limit)


def _add(connection: Connection, usage: DeferredUsageRow) -> None:
    row = {
        "id": usage.id,
        "created_at": usage.key.minute_at,
        **{name: getattr(usage.key, name) for name in _KEY_COLUMNS},
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
    }
    connection.execute(insert_into(connection, deferred_usage).on_conflict_do_nothing(), row)


def _charge(connection: Connection, id: str, total: Tokens, minute_at: int) -> bool:
    deletion = delete(deferred_usage).where(deferred_usage.c.id == id).returning(deferred_usage)
    row = connection.execute(deletion).mappings().first()
    if row is None:
        return False
    input_tokens = max(0, total.input_tokens - row["input_tokens"])
    output_tokens = max(0, total.output_tokens - row["output_tokens"])
    key = UsageKey(minute_at, *(row[name] for name in _KEY_COLUMNS))
    uncounted = total._replace(
        input_tokens=input_tokens,
        cached_tokens=min(total.cached_tokens, input_tokens),
        output_tokens=output_tokens,
    )
    add_usage(connection, {key: [0, *uncounted.normalize(), 0]})
    return True


def _delete_old(connection: Connection, before: int, limit: int) -> None:
    connection.execute(delete(deferred_usage).where(deferred_usage.c.created_at < before))
    key = tuple_(deferred_usage.c.created_at, deferred_usage.c.id)  # many rows share a minute
    newest = select(deferred_usage.c.created_at, deferred_usage.c.id).order_by(
        deferred_usage.c.created_at.desc(), deferred_usage.c.id.desc()
    )
    first_too_many = connection.execute(newest.offset(limit).limit(1)).first()
    if first_too_many is not None:
        connection.execute(delete(deferred_usage).where(key <= tuple_(*first_too_many)))
