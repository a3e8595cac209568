"""SQLite: one thread that writes, a few that read, one file in write-ahead-log mode.

The driver blocks, so it runs in threads; a unit of work goes to a thread whole instead of statement
by statement. Measured against an asynchronous driver with a hop for each statement this is twice
the reads and nearly four times the writes a second, and one library less.

`synchronous` is FULL: what was acknowledged survives a power cut and not only the end of the
process, as on PostgreSQL. Group commit makes that cheap: at 16 writers it costs 3 % against NORMAL.
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

from llm_backend.store import bodies
from llm_backend.store.errors import CannotOpen, StoreUnavailable
from llm_backend.store.ownership import guard
from llm_backend.store.translation import translating
from llm_backend.store.upsert import ROWS_A_STATEMENT
from llm_backend.store.writing import Work, WriteQueue

__all__ = ["SqliteEngine"]

T = TypeVar("T")

_READERS = 4
_BUSY_TIMEOUT_MS = 5000
_LOOK_AGAIN_S = 0.01
_PRAGMAS = (
    f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}",  # first: the others may meet a lock
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",
)


class SqliteEngine:
    """Runs works on one database file."""

    def __init__(self, url: URL) -> None:
        self.path = _path_of(url)
        self._engine = _engine_of(self.path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-reader")
        self._queue: WriteQueue | None = None

    async def open(self) -> None:
        """Create the file if there is none, readable by its owner only."""
        await self._in(self._writer, self._prepare)
        self._queue = WriteQueue(self._commit)

    async def read(self, work: Work[T]) -> T:
        """Do `work` on one snapshot of the database."""
        return await self._in(self._readers, lambda: self._do([work], "BEGIN")[0])

    async def write(self, work: Work[T]) -> T:
        """Do `work`; return when it is on the disk. All share: there is one transaction at a time,
        so nobody waits for who waits for him."""
        assert self._queue, "opened before use"
        return await self._queue.share(work)

    async def insert(self, work: Work[T]) -> T:
        """The same."""
        return await self.write(work)

    async def alter(self, work: Work[T]) -> T:
        """Do `work` alone, without foreign keys: SQLite alters a table by copying and dropping it,
        and dropping one would take along the rows that refer to it.
        """
        return await self._in(self._writer, lambda: self._alter(work))

    async def close(self) -> None:
        """Finish what is queued, then let go of the file."""
        if self._queue:
            await self._queue.close()
        for threads in (self._readers, self._writer):
            await asyncio.to_thread(threads.shutdown)
        self._engine.dispose()

    async def _commit(self, works: Sequence[Work[Any]]) -> Sequence[Any]:
        return await self._in(self._writer, lambda: self._do(works, "BEGIN IMMEDIATE"))

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function)

    def _do(self, works: Sequence[Work[Any]], begin: str) -> Sequence[Any]:
        with translating(), self._engine.connect() as connection:
            connection.execution_options(begin=begin)
            with connection.begin():
                return [work(connection) for work in works]

    def _alter(self, work: Work[T]) -> T:
        with translating(), self._engine.connect() as connection:
            driver = _driver_of(connection)
            driver.execute("PRAGMA foreign_keys = OFF")  # does nothing once a transaction began
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
        with translating(), self._engine.connect() as connection:
            _log_ahead(_driver_of(connection))


def _path_of(url: URL) -> Path:
    if not url.database or url.database == ":memory:":
        raise CannotOpen("SQLite needs a file: sqlite:////folder/file.db (four slashes: absolute).")
    return Path(url.database)


def _engine_of(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None},  # transactions begin where we say, below
        pool_size=_READERS + 1,
        max_overflow=0,
        insertmanyvalues_page_size=ROWS_A_STATEMENT,
        hide_parameters=True,  # they are what was said, and an error's text reaches the log
        json_serializer=bodies.dumps,
        json_deserializer=bodies.loads,
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    guard(engine)
    return engine


def _configure(driver: Any, _record: object) -> None:  # the driver's own connection
    for pragma in _PRAGMAS:
        driver.execute(pragma)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _log_ahead(driver: Any) -> None:  # the driver's own connection
    """Write-ahead logging from now on. Several that open a new file at once are in each other's way
    here, and SQLite does not wait for this lock by itself.
    """
    until_s = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            driver.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise StoreUnavailable(f"The database cannot be used: {error}") from error
        time.sleep(_LOOK_AGAIN_S)


def _driver_of(connection: Connection) -> Any:  # sqlite3's own connection: no transaction begins
    return connection.connection.driver_connection
