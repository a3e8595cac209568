"""Locks of names, for rows that are counted before one more is inserted."""

from sqlalchemy import Connection, text

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


def lock_name(connection: Connection, name: str) -> None:
    """Locks a name until the transaction ends: others that lock it wait. Their commits are seen by
    the next statement. On SQLite there is one writer at a time, and nothing to lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK, {"name": name})
