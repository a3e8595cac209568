"""The one row that is asked for by name."""

from typing import Any  # a row may hold anything

from sqlalchemy import Connection, Row, Select

from llm_backend.store.bodies import is_text
from llm_backend.store.errors import Missing

__all__ = ["row_named"]


def row_named(connection: Connection, statement: Select[Any], *ids: str) -> Row[Any]:
    """The statement's row. Raises `Missing` for the last of these `ids`, which clients have given:
    where there is none, or where they are texts that no column holds."""
    row = connection.execute(statement).first() if all(map(is_text, ids)) else None
    if row is None:
        raise Missing(ids[-1])
    return row
