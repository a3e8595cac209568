"""Translation of errors: SQLAlchemy's and the drivers' become those of `errors.py`.

SQLite reports failures by number, PostgreSQL by SQLSTATE. Both are on the driver's own exception,
which SQLAlchemy keeps as `orig`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from sqlalchemy.exc import DBAPIError, SQLAlchemyError, StatementError

from llm_backend.store.errors import (
    StoreDeadlock,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    Unstorable,
)

# The longest prefix of the SQLSTATE decides: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = {
    "22": Unstorable,  # data exception: a NUL byte, a number out of range
    "23": Unstorable,  # integrity constraint violation
    "54": Unstorable,  # program limit exceeded: an indexed value too long
    "40": StoreDeadlock,  # deadlock, serialization failure
    "55P03": StoreLocked,  # lock not available
    "53100": StoreFull,
}
_ADVICE = {
    StoreLocked: "Another process holds the database; try again",
    StoreDeadlock: "Two writers waited for each other; try again",
    StoreFull: "The disk of the database is full; make room on it",
    StoreUnavailable: "The database cannot be used",
    Unstorable: "The database cannot hold this value",
}


@contextmanager
def translate_driver_errors() -> Iterator[None]:
    """Context that turns errors of the database into `StoreError`."""
    try:
        yield
    except (SQLAlchemyError, UnicodeEncodeError, OverflowError) as error:
        raise translate_error(error) from error


def translate_error(error: Exception) -> StoreError:
    """The `StoreError` for this error; `StoreUnavailable` for an unknown error."""
    if isinstance(error, UnicodeEncodeError | OverflowError):  # sqlite3 raises these itself
        return _store_error(Unstorable, error)
    if isinstance(error, DBAPIError):
        return _store_error(_kind(error), error.orig or error)
    if isinstance(error, StatementError):  # SQLAlchemy refused a value
        return _store_error(Unstorable, error.orig or error)
    return _store_error(StoreUnavailable, error)


def _store_error(kind: type[StoreError], cause: BaseException) -> StoreError:
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return kind(f"{_ADVICE[kind]}: {lines[0]}")


def _kind(error: DBAPIError) -> type[StoreError]:
    number = getattr(error.orig, "sqlite_errorcode", None)
    if number is not None:
        kinds = _sqlite_kinds()
        return kinds.get(number) or kinds.get(number & 0xFF, StoreUnavailable)
    state = getattr(error.orig, "sqlstate", None) or ""
    for length in (5, 2):
        if state[:length] in _POSTGRESQL:
            return _POSTGRESQL[state[:length]]
    return StoreUnavailable


@cache
def _sqlite_kinds() -> Mapping[int, type[StoreError]]:
    import sqlite3  # here: a server on PostgreSQL does without it

    return {
        sqlite3.SQLITE_BUSY: StoreLocked,
        sqlite3.SQLITE_LOCKED: StoreLocked,
        sqlite3.SQLITE_FULL: StoreFull,
        sqlite3.SQLITE_IOERR_SHMSIZE: StoreFull,  # no room for the write-ahead log's index
        sqlite3.SQLITE_TOOBIG: Unstorable,
        sqlite3.SQLITE_CONSTRAINT: Unstorable,
        sqlite3.SQLITE_MISMATCH: Unstorable,
    }


def is_taken(error: DBAPIError) -> bool:
    """True if a unique constraint refused the row."""
    name = getattr(error.orig, "sqlite_errorname", None)
    state = getattr(error.orig, "sqlstate", None)
    return name == "SQLITE_CONSTRAINT_UNIQUE" or state == "23505"
