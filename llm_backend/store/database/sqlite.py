"""SQLite: one writer thread, some reader threads, one file in write-ahead-log mode.

The driver blocks, so it runs in threads, and a thread runs a whole unit of work rather than single
statements. An asynchronous driver, which switches threads for each statement, was measured at half
the reads and a quarter of the writes a second, and would be one more library.

`synchronous` is FULL, so that acknowledged writes survive a power cut, as on PostgreSQL, and not
only the end of the process. The write queue makes that cheap: at 16 writers it costs 3 % against
NORMAL.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event

from llm_backend.store import json_text
from llm_backend.store.database.driver_errors import translate_driver_errors
from llm_backend.store.database.ownership import enforce_ownership
from llm_backend.store.database.upsert import ROWS_A_STATEMENT
from llm_backend.store.database.write_queue import UnitOfWork, WriteQueue
from llm_backend.store.errors import CannotOpen, StoreUnavailable
from llm_backend.store.keyset_pages import PAGE_LIMIT_OPTION

T = TypeVar("T")

_READERS = 4
_BUSY_TIMEOUT_MS = 5000
_BOUND_LIMIT_BYTES = 4 * 1024 * 1024  # of the values that one connection's statements keep
_UNCOUNTED_LENGTH = 4096  # longest value that is not counted
_WAL_RETRY_S = 0.01
_BOUND_BYTES_KEY = "bound_bytes"
_PRAGMAS = (
    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}",  # first: the next ones may wait for a lock
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",
)


class SqliteDatabase:
    """Runs units of work on one database file."""

    def __init__(self, url: URL, page_limit_bytes: int) -> None:
        self.path = _path_of(url)
        self._engine = _engine_of(self.path, page_limit_bytes)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._queue: WriteQueue | None = None

    async def open(self) -> None:
        """Creates the file if it does not exist, readable by its owner only."""
        await self._run_in(self._writer, self._prepare)
        self._queue = WriteQueue(self._commit)

    async def read(self, work: UnitOfWork[T]) -> T:
        """Runs `work` on one snapshot of the database."""
        return await self._run_in(self._readers, lambda: self._do([work], "BEGIN")[0])

    async def write(self, work: UnitOfWork[T]) -> T:
        """Runs `work`; returns when it is on the disk. Any units of work may share a transaction:
        only one transaction writes at a time, so there are no deadlocks."""
        assert self._queue, "opened before use"
        return await self._queue.write_batched(work)

    async def insert(self, work: UnitOfWork[T]) -> T:
        """The same as `write`."""
        return await self.write(work)

    async def alter(self, work: UnitOfWork[T]) -> T:
        """Runs `work` alone, without foreign keys: SQLite alters a table by copying and dropping
        it, and dropping it would delete the rows that refer to it."""
        return await self._run_in(self._writer, lambda: self._alter(work))

    async def close(self) -> None:
        """Commits the queued writes, then closes the file."""
        if self._queue:
            await self._queue.close()
        for threads in (self._readers, self._writer):
            await asyncio.to_thread(threads.shutdown)
        self._engine.dispose()

    async def _commit(self, works: Sequence[UnitOfWork[Any]]) -> Sequence[Any]:
        return await self._run_in(self._writer, lambda: self._do(works, "BEGIN IMMEDIATE"))

    async def _run_in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def _do(self, works: Sequence[UnitOfWork[Any]], begin: str) -> Sequence[Any]:
        with translate_driver_errors(), self._engine.connect() as connection:
            connection.execution_options(begin=begin)
            try:
                with connection.begin():
                    return [work(connection) for work in works]
            finally:
                _free_bound_values(connection)

    def _alter(self, work: UnitOfWork[T]) -> T:
        with translate_driver_errors(), self._engine.connect() as connection:
            driver = _driver_of(connection)
            driver.execute("PRAGMA foreign_keys = OFF")  # has no effect inside a transaction
            connection.execution_options(begin="BEGIN IMMEDIATE")
            try:
                with connection.begin():
                    return work(connection)
            finally:
                driver.execute("PRAGMA foreign_keys = ON")

    def _prepare(self) -> None:
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise CannotOpen(f"Cannot open the database {self.path}: {error.strerror}.") from error
        with translate_driver_errors(), self._engine.connect() as connection:
            _enable_wal(_driver_of(connection))


def _path_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise CannotOpen("SQLite needs a file: sqlite:////folder/file.db (four slashes: absolute).")
    return Path(url.database)


def _engine_of(path: Path, page_limit_bytes: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None},  # `_begin` begins transactions
        pool_size=_READERS + 1,
        max_overflow=0,
        insertmanyvalues_page_size=ROWS_A_STATEMENT,
        hide_parameters=True,  # bodies of requests must not reach the log with an error
        json_serializer=json_text.dumps,
        json_deserializer=json_text.loads,
        execution_options={PAGE_LIMIT_OPTION: page_limit_bytes},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "before_cursor_execute", _count_bound_values)
    enforce_ownership(engine)
    return engine


def _configure(driver: Any, _record: object) -> None:  # the driver's own connection
    for pragma in _PRAGMAS:
        driver.execute(pragma)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _count_bound_values(
    connection: Connection,
    _cursor: object,
    _statement: str,
    parameters: Sequence[Any],
    _context: object,
    _is_many: bool,
) -> None:
    # A tuple has the values of one row, or of all rows of one statement. Of a list of rows
    # (`executemany`) the statement keeps only the values of the last one.
    bound = parameters[-1] if isinstance(parameters, list) else parameters
    size = sum(
        len(one) for one in bound if isinstance(one, str | bytes) and len(one) > _UNCOUNTED_LENGTH
    )
    if size:
        connection.info[_BOUND_BYTES_KEY] = connection.info.get(_BOUND_BYTES_KEY, 0) + size


def _free_bound_values(connection: Connection) -> None:
    """Closes a connection whose prepared statements may hold much memory. Each statement keeps a
    copy of the values that were bound last, and the driver can neither unbind them nor drop a
    statement. The pool opens another connection, in less than a millisecond."""
    if connection.info.get(_BOUND_BYTES_KEY, 0) > _BOUND_LIMIT_BYTES:
        connection.invalidate()


def _enable_wal(driver: Any) -> None:  # the driver's own connection
    """Switches to write-ahead logging. Processes that open a new file together conflict here, and
    SQLite does not wait for this lock by itself, so this retries."""
    deadline_s = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise StoreUnavailable(f"The database cannot be used: {error}") from error
        time.sleep(_WAL_RETRY_S)


def _driver_of(connection: Connection) -> Any:  # sqlite3's own connection: no transaction begins
    return connection.connection.driver_connection
