"""Lookup of one row by ids that clients send."""

from typing import Any  # a row may hold anything

from sqlalchemy import Connection, Row, Select

from llm_backend.store.errors import Missing
from llm_backend.store.json_text import is_text

_ID_CHARACTERS = 4096


def find_row(connection: Connection, statement: Select[Any], *ids: str) -> Row[Any]:
    """The row of the statement. Raises `Missing` for the last of `ids`, if there is no row or if
    one of these ids is a text that no column can store, or longer than any id."""
    row = connection.execute(statement).first() if all(map(is_id, ids)) else None
    if row is None:
        raise Missing(ids[-1])
    return row


def is_id(text: str) -> bool:
    """True if a row may have this id: a column can store it, and it is no longer than any id."""
    return len(text) <= _ID_CHARACTERS and is_text(text)
