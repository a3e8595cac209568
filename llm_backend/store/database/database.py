"""The database: opened from a URL, and used through units of work that read or write.

    async with Database.open("sqlite:////var/lib/llm-backend/state.db") as database:
        await migrate(database)
        await ChatStore(database).add(chat, messages)

A unit of work is a plain function of a connection. The database engine decides its thread or
driver, its commit, and the units of work that share its transaction. So the same function serves
SQLite and PostgreSQL.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, Self, TypeVar

from sqlalchemy import URL, Connection, make_url, text
from sqlalchemy.exc import ArgumentError

from llm_backend.store.database.ownership import with_owner
from llm_backend.store.database.write_health import WriteHealth, probe
from llm_backend.store.database.write_queue import UnitOfWork
from llm_backend.store.errors import CannotOpen, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_CHECK_TIMEOUT_S = 3.0
_PAGE_LIMIT_BYTES = 16 * 1024 * 1024


class _Engine(Protocol):
    @property
    def path(self) -> Path | None: ...
    async def open(self) -> None: ...
    async def read(self, work: UnitOfWork[T]) -> T: ...
    async def write(self, work: UnitOfWork[T]) -> T: ...
    async def insert(self, work: UnitOfWork[T]) -> T: ...
    async def alter(self, work: UnitOfWork[T]) -> T: ...
    async def close(self) -> None: ...


class Database:
    """An open database; made by `Database.open`."""

    def __init__(
        self,
        engine: _Engine,
        on_written: Callable[[float], None],
        on_waiting: Callable[[float], None],
        on_failed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._health = WriteHealth(on_failed)
        self._probing: asyncio.Task[None] | None = None
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
        *,
        page_limit_bytes: int = _PAGE_LIMIT_BYTES,
    ) -> AsyncIterator[Self]:
        """Opens the database at `url`, `sqlite:///FILE` or `postgresql://...`, and closes it at the
        end.

        `on_written` gets the seconds that each write took until it was durable. `on_waiting` gets
        the change in the number of writes that are not durable yet. `on_failed` is called for each
        write that the database cannot take. `page_limit_bytes` bounds the rows of one page of a
        list.

        Raises `CannotOpen` for errors that only a person can correct. An unreachable PostgreSQL
        server is not one of them: the first work raises `StoreUnavailable`, and a later one may
        succeed.
        """
        engine = _engine_for(url, page_limit_bytes)
        try:
            await engine.open()
            yield cls(engine, on_written, on_waiting, on_failed)
        finally:
            await engine.close()

    @property
    def path(self) -> Path | None:
        """The file of the database; None if it is on a server."""
        return self._engine.path

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `work`, which must write nothing, with these arguments on one consistent snapshot;
        return its result."""
        return await self._engine.read(with_owner(_bind(work, *args, **kwargs)))

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `work` in a transaction, and returns its result once everything it wrote is durable.

        `work` may be called again, after a deadlock, or after other work in the same transaction
        failed; so it must change nothing but the database. Its failure affects no other work.
        Cancelling the caller does not cancel it.
        """
        return await self._write_measured(self._engine.write, _bind(work, *args, **kwargs))

    async def insert(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `write`, for a unit of work that only inserts rows whose keys are new and random. It
        locks nothing that others could need, so several share one transaction, which is much
        cheaper with many writers."""
        return await self._write_measured(self._engine.insert, _bind(work, *args, **kwargs))

    async def _write_measured(
        self, write: Callable[[UnitOfWork[T]], Awaitable[T]], work: UnitOfWork[T]
    ) -> T:
        began_s = time.perf_counter()
        self._on_waiting(1)
        try:
            result = await write(with_owner(work))
        except StoreUnavailable as error:
            self._health.record_failure(error)
            raise
        finally:
            self._on_waiting(-1)
        self._on_written(time.perf_counter() - began_s)
        return result

    async def alter(self, work: UnitOfWork[T]) -> T:
        """Runs `work`, which changes tables, alone in its transaction and without a time limit;
        return its result.

        Where altering a table means replacing it (SQLite), foreign keys are not enforced meanwhile.
        """
        return await self._engine.alter(work)

    async def check(self) -> None:
        """Raises `StoreUnavailable` unless the database answers a read within three seconds. After
        a failed write it must also take a write, which all checks share until it ends, so that they
        add no further writes to a stuck database."""
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                await self.read(_read_revision)
                if self._health.failure is not None:
                    await asyncio.shield(self._begin_probe())
        except TimeoutError as error:
            raise StoreUnavailable("The database does not answer.") from error

    def _begin_probe(self) -> asyncio.Task[None]:
        """Begins a probe, unless one has begun and not ended."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe())
            # Marks the error as retrieved: the check may have timed out.
            self._probing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._probing

    async def _probe(self) -> None:
        await self.write(probe)
        self._health.record_success()


def _bind(
    work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> UnitOfWork[T]:
    return lambda connection: work(connection, *args, **kwargs)


def _read_revision(connection: Connection) -> None:
    connection.execute(text("SELECT version_num FROM alembic_version")).all()


def _engine_for(url: str, page_limit_bytes: int) -> _Engine:
    # Imported here: a server does without the other database's driver.
    parsed = _parse_url(url)
    backend = parsed.drivername.split("+")[0]
    if backend == "sqlite":
        from llm_backend.store.database.sqlite import SqliteDatabase

        return SqliteDatabase(parsed, page_limit_bytes)
    if backend in ("postgresql", "postgres"):
        from llm_backend.store.database.postgresql import PostgresqlDatabase

        server = "postgresql" + url[len(parsed.drivername) :]
        return PostgresqlDatabase(server, page_limit_bytes)
    raise CannotOpen(f"`{backend}` is not a database of this server: use sqlite or postgresql.")


def _parse_url(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise CannotOpen(
            "The database URL is neither sqlite:///FILE nor postgresql://USER@HOST/NAME."
        ) from error
