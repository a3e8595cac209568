"""What upstreams go on with after their answers: counted once, when they tell what it took."""

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, delete, select

from llm_backend.store.administration import usage_rows
from llm_backend.store.administration.tables import unsettled
from llm_backend.store.administration.usage_rows import Tokens, UsageKey
from llm_backend.store.database import Database
from llm_backend.store.stored_chat import check_texts
from llm_backend.store.upsert import insert_into

__all__ = ["Unsettled", "UnsettledUsage"]

_OF_THE_KEY = [name for name in UsageKey._fields if name != "minute_at"]


@dataclass(frozen=True, kw_only=True)
class Unsettled:
    """Work under an upstream's id, begun in the minute of its `key`, under which it counts. So many
    of its tokens are counted already."""

    id: str
    key: UsageKey
    input_tokens: int = 0
    output_tokens: int = 0


class UnsettledUsage:
    """What a database knows of it. Times are in unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, begun: Unsettled) -> None:
        """Durable on return; nothing where the id is known. Raises `Unstorable` for an id that no
        column can hold."""
        check_texts(begun.id, *(str(value) for value in begun.key))
        await self._database.write(partial(_add, begun=begun))

    async def settle(self, id: str, told: Tokens, *, minute_at: int) -> bool:
        """Counts what is not counted yet of what it took in all (`told`), in this minute, and
        forgets the id: one transaction. Gives whether the id was known."""
        check_texts(id)
        return await self._database.write(partial(_settle, id=id, told=told, minute_at=minute_at))

    async def forget(self, *, before: int, most: int) -> None:
        """Forgets what was begun before, and the oldest of what is more than so many."""
        await self._database.write(partial(_forget, before=before, most=most))


def _add(connection: Connection, begun: Unsettled) -> None:
    row = {
        "id": begun.id,
        "created_at": begun.key.minute_at,
        **{name: getattr(begun.key, name) for name in _OF_THE_KEY},
        "input_tokens": begun.input_tokens,
        "output_tokens": begun.output_tokens,
    }
    connection.execute(insert_into(connection, unsettled).on_conflict_do_nothing(), row)


def _settle(connection: Connection, id: str, told: Tokens, minute_at: int) -> bool:
    these = delete(unsettled).where(unsettled.c.id == id).returning(unsettled)
    row = connection.execute(these).mappings().first()
    if row is None:
        return False
    given = max(0, told.input_tokens - row["input_tokens"])
    made = max(0, told.output_tokens - row["output_tokens"])
    key = UsageKey(minute_at, *(row[name] for name in _OF_THE_KEY))
    left = told._replace(
        input_tokens=given, cached_tokens=min(told.cached_tokens, given), output_tokens=made
    )
    usage_rows.add(connection, {key: [0, *left.allotted(), 0]})
    return True


def _forget(connection: Connection, before: int, most: int) -> None:
    connection.execute(delete(unsettled).where(unsettled.c.created_at < before))
    newest = select(unsettled.c.created_at).order_by(unsettled.c.created_at.desc())
    first_too_many = connection.scalar(newest.offset(most).limit(1))
    if first_too_many is not None:
        connection.execute(delete(unsettled).where(unsettled.c.created_at <= first_too_many))
