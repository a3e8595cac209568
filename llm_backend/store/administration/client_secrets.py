"""Client secrets: short-lived keys by their hashes, each with the session that it is bound to."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from llm_backend.json_types import JsonMapping
from llm_backend.store.database.database import Database
from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.errors import SecretsFull
from llm_backend.store.row_values import row_from, value_from
from llm_backend.store.tables.administration import client_secrets


@dataclass(frozen=True, kw_only=True)
class StoredSecret:
    """A client secret without its value. `key_id` is the key that made it; None if keys are off."""

    hash: str
    expires_at: int  # unix seconds
    key_id: str | None
    session: JsonMapping


class ClientSecrets:
    """The client secrets of a database."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def add(self, secret: StoredSecret, *, limit: int) -> None:
        """Stores a secret; it is durable on return. Raises `SecretsFull` if its key has `limit` of
        them."""
        now = int(self._clock())
        await self._database.write(_add, secret=secret, limit=limit, now=now)

    async def find(self, hash: str) -> StoredSecret | None:
        """The secret with this hash; None if there is none, or if it has expired."""
        return await self._database.read(_find, hash=hash, now=int(self._clock()))

    async def expire(self) -> None:
        """Deletes expired secrets."""
        await self._database.write(_expire, now=int(self._clock()))


def _add(connection: Connection, secret: StoredSecret, limit: int, now: int) -> None:
    lock_name(connection, f"client secrets of {secret.key_id}")
    columns = client_secrets.c
    is_of_key = columns.key_id.is_not_distinct_from(secret.key_id)
    query = select(func.count()).select_from(client_secrets)
    if connection.execute(query.where(is_of_key, columns.expires_at > now)).scalar_one() >= limit:
        raise SecretsFull(limit)
    connection.execute(insert(client_secrets), row_from(secret, client_secrets))


def _find(connection: Connection, hash: str, now: int) -> StoredSecret | None:
    this = (client_secrets.c.hash == hash) & (client_secrets.c.expires_at > now)
    row = connection.execute(select(client_secrets).where(this)).first()
    return None if row is None else value_from(row, StoredSecret)


def _expire(connection: Connection, now: int) -> None:
    connection.execute(delete(client_secrets).where(client_secrets.c.expires_at <= now))
