"""The database: opened from a URL, and asked to read or write in units of work.

    async with Database.open("sqlite:////var/lib/llm-backend/state.db") as database:
        await migrate(database)
        await Chats(database).add(chat, messages)

A unit of work is a plain function of a connection. Which thread or driver runs it, when it commits
and with whom, is the engine's business: the same function serves SQLite and PostgreSQL.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self, TypeVar

from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.exc import ArgumentError

from llm_backend.store.errors import CannotOpen, StoreUnavailable
from llm_backend.store.ownership import owned
from llm_backend.store.postgresql import PostgresqlEngine
from llm_backend.store.sqlite import SqliteEngine
from llm_backend.store.write_health import WriteHealth, probe
from llm_backend.store.writing import Work

__all__ = ["Database"]

T = TypeVar("T")

_CHECK_TIMEOUT_S = 3.0


class _Engine(Protocol):
    @property
    def path(self) -> Path | None: ...
    async def open(self) -> None: ...
    async def read(self, work: Work[T]) -> T: ...
    async def write(self, work: Work[T]) -> T: ...
    async def insert(self, work: Work[T]) -> T: ...
    async def alter(self, work: Work[T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """Where state lives; made by `Database.open`."""

    def __init__(
        self,
        engine: _Engine,
        on_written: Callable[[float], None],
        on_waiting: Callable[[float], None],
        on_failed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._health = WriteHealth(on_failed)
        self._on_written = on_written
        self._on_waiting = on_waiting

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        on_written: Callable[[float], None] = lambda _: None,
        on_waiting: Callable[[float], None] = lambda _: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> AsyncIterator[Self]:
        """The database at `url`, `sqlite:///FILE` or `postgresql://...`; closed at the end.

        `on_written` is told how many seconds each write took until it was durable, and `on_waiting`
        by how many the writes that are not durable yet become more or fewer; `on_failed` is called
        for each write that the database cannot take.
        Raises `CannotOpen` for what only a person can mend. A PostgreSQL server that is not there
        is met by the first work, as `StoreUnavailable`: it may come up later.
        """
        engine = _engine_for(url)
        try:
            await engine.open()
            yield cls(engine, on_written, on_waiting, on_failed)
        finally:
            await engine.close()

    @property
    def path(self) -> Path | None:
        """The database's file; None where it is a server."""
        return self._engine.path

    async def read(self, work: Work[T]) -> T:
        """What `work` returns from one consistent view of the database; it writes nothing."""
        return await self._engine.read(owned(work))

    async def write(self, work: Work[T]) -> T:
        """What `work` returns, once everything it wrote is durable.

        It may be called again, when another one fails that it shared a transaction with or when
        two have waited for each other, so it changes nothing but the database; it fails alone. A
        caller that is cancelled does not withdraw it.
        """
        return await self._written(self._engine.write, work)

    async def insert(self, work: Work[T]) -> T:
        """The same for a work that only inserts rows under names that nobody else will think of:
        it holds nothing that others could want, so it shares its transaction with others like it,
        which is much cheaper where many write.
        """
        return await self._written(self._engine.insert, work)

    async def _written(self, write: Callable[[Work[T]], Awaitable[T]], work: Work[T]) -> T:
        began_s = time.perf_counter()
        self._on_waiting(1)
        try:
            result = await write(owned(work))
        except StoreUnavailable as error:
            self._health.failed(error)
            raise
        finally:
            self._on_waiting(-1)
        self._on_written(time.perf_counter() - began_s)
        return result

    async def alter(self, work: Work[T]) -> T:
        """What `work` returns; it changes tables, alone in its transaction, for as long as needed.

        Foreign keys are not enforced meanwhile where altering a table means to replace it.
        """
        return await self._engine.alter(work)

    async def check(self) -> None:
        """Raise `StoreUnavailable` unless the database answers within three seconds, and takes a
        write where it could not take the last one that failed."""
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await self.read(_touch)
                if self._health.failure is not None:
                    await self.write(probe)
                    self._health.probed()
        except TimeoutError as error:
            raise StoreUnavailable("The database does not answer.") from error


def _touch(connection: Connection) -> None:
    connection.execute(text("SELECT version_num FROM alembic_version")).all()


def _engine_for(url: str) -> _Engine:
    parsed = _parsed(url)
    backend = parsed.drivername.split("+")[0]
    if backend == "sqlite":
        return SqliteEngine(parsed)
    if backend in ("postgresql", "postgres"):
        return PostgresqlEngine("postgresql" + url[len(parsed.drivername) :])
    raise CannotOpen(f"`{backend}` is not a database this server knows: sqlite or postgresql.")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise CannotOpen(
            "The database URL is neither sqlite:///FILE nor postgresql://USER@HOST/NAME."
        ) from error
