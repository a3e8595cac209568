"""PostgreSQL: a pool of connections; several processes and replicas share a database.

The URL is passed to the driver unchanged, so that all of libpq's forms work: `sslmode`,
`sslrootcert`, several hosts, a socket's folder as `host`, a password from `PGPASSWORD` or
`~/.pgpass`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import NullPool
from sqlalchemy.dialects import registry

from llm_backend.extras import install_command
from llm_backend.store import json_text
from llm_backend.store.database.driver_errors import translate_driver_errors
from llm_backend.store.database.ownership import enforce_ownership
from llm_backend.store.database.upsert import ROWS_A_STATEMENT
from llm_backend.store.database.write_queue import UnitOfWork, WriteQueue
from llm_backend.store.errors import CannotOpen, StoreUnavailable
from llm_backend.store.keyset_pages import PAGE_LIMIT_OPTION, limit_page_bytes
from llm_backend.unused_imports import block_imports

T = TypeVar("T")

_CONNECTIONS = 10
_CONNECT_TIMEOUT_S = 5
_COMMAND_TIMEOUT_S = 30
_WRITERS = 4  # whose round trips overlap
_WORKS_PER_TRANSACTION = 16
# Other drivers, which SQLAlchemy's dialect imports.
_UNUSED_DRIVERS = {
    f"sqlalchemy__dialects__postgresql__{name}": ("dialect", "dialect_async")
    for name in ("pg8000", "psycopg", "psycopg2", "psycopg2cffi")
}
# Names of SQLAlchemy's sessions: their object-relational mapper, 10 MB, is not used.
_SESSIONS = (
    "AsyncAttrs", "AsyncSession", "AsyncSessionTransaction", "async_object_session",
    "async_session", "async_sessionmaker", "close_all_sessions",
)  # fmt: skip
_DIALECT = "postgresql+asyncpg://"
_OPTIONS: dict[str, Any] = {
    "json_serializer": json_text.dumps,
    "json_deserializer": json_text.loads,
    "insertmanyvalues_page_size": ROWS_A_STATEMENT,
    "hide_parameters": True,  # bodies of requests must not reach the log with an error
}


class PostgresqlDatabase:
    """Runs units of work on one server."""

    path = None

    def __init__(self, url: str, page_limit_bytes: int) -> None:
        # Imported here: a server on SQLite needs neither this driver nor SQLAlchemy's async half.
        try:
            with block_imports(asyncpg__pool=("Pool", "create_pool")):
                import asyncpg  # it ships no types
            with block_imports(
                sqlalchemy__ext__asyncio__scoping=("async_scoped_session",),
                sqlalchemy__ext__asyncio__session=_SESSIONS,
            ):
                from sqlalchemy.ext.asyncio import create_async_engine
            with block_imports(**_UNUSED_DRIVERS):
                from sqlalchemy.dialects.postgresql import asyncpg as dialect
            # registered as PostgreSQL's default, which SQLAlchemy would load from psycopg's module
            registry.register("postgresql", dialect.__name__, "dialect")
        except ModuleNotFoundError as error:
            raise CannotOpen(
                f"PostgreSQL needs its driver: {install_command('postgresql')}."
            ) from error

        async def connect(command_timeout_s: float | None) -> Any:  # asyncpg ships no types
            return await asyncpg.connect(
                url, timeout=_CONNECT_TIMEOUT_S, command_timeout=command_timeout_s
            )

        # Errors while connecting; SQLAlchemy wraps those of the driver that come later.
        self._connect_errors = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
        self._engine = create_async_engine(
            _DIALECT,
            async_creator=lambda: connect(_COMMAND_TIMEOUT_S),
            pool_size=_CONNECTIONS,
            max_overflow=0,
            pool_timeout=_CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            execution_options={PAGE_LIMIT_OPTION: page_limit_bytes},
            **_OPTIONS,
        )
        enforce_ownership(self._engine.sync_engine)
        limit_page_bytes(self._engine.sync_engine)
        self._untimed_engine = create_async_engine(
            _DIALECT, async_creator=lambda: connect(None), poolclass=NullPool, **_OPTIONS
        )
        self._snapshots = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._queue: WriteQueue | None = None

    async def open(self) -> None:
        """Starts the write queue. No connection is made yet: the first work makes one."""
        self._queue = WriteQueue(self._commit, tasks=_WRITERS, batch=_WORKS_PER_TRANSACTION)

    async def read(self, work: UnitOfWork[T]) -> T:
        """Runs `work` on one snapshot of the database."""
        with self._translating():
            async with self._snapshots.connect() as connection:
                return await connection.run_sync(work)

    async def write(self, work: UnitOfWork[T]) -> T:
        """Runs `work` in a transaction of its own; returns when it is committed."""
        assert self._queue, "opened before use"
        return await self._queue.write(work)

    async def insert(self, work: UnitOfWork[T]) -> T:
        """Runs `work` in one transaction with others; returns when it is committed."""
        assert self._queue, "opened before use"
        return await self._queue.write_batched(work)

    async def alter(self, work: UnitOfWork[T]) -> T:
        """Runs `work` alone and without a time limit: it may copy tables, or wait for another
        migration."""
        with self._translating():
            async with self._untimed_engine.begin() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        """Commits the queued writes, then closes the connections."""
        if self._queue:
            await self._queue.close()
        await self._engine.dispose()

    async def _commit(self, works: Sequence[UnitOfWork[Any]]) -> Sequence[Any]:
        with self._translating():
            async with self._engine.begin() as connection:
                return [await connection.run_sync(work) for work in works]

    @contextmanager
    def _translating(self) -> Iterator[None]:
        with translate_driver_errors():
            try:
                yield
            except self._connect_errors as error:
                reason = str(error) or "it does not answer"
                raise StoreUnavailable(f"The database cannot be used: {reason}") from error
