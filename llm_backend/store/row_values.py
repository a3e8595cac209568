"""Rows as values and values as rows: a field has the name of its column; lookup of one row by ids
that clients send."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar  # Any: a row may hold anything

from sqlalchemy import Connection, Row, Select, Table

from llm_backend.store.errors import Missing
from llm_backend.store.text_checks import is_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

V = TypeVar("V", bound="DataclassInstance")

_ID_CHARACTERS = 4096  # of the longest id


def value_from(row: Row[Any], kind: type[V], **others: Any) -> V:
    """The value (a dataclass) of a row; `others` are the fields whose values differ from their
    columns, or that have none."""
    names = [field.name for field in fields(kind) if field.name not in others]
    return kind(**{name: getattr(row, name) for name in names}, **others)


def row_from(value: object, table: Table, **others: Any) -> dict[str, Any]:
    """The row of a value: its fields that are columns of the table. `others` are columns whose
    values differ from the fields."""
    names = [column.name for column in table.columns if hasattr(value, column.name)]
    return {name: getattr(value, name) for name in names} | others


def find_row(connection: Connection, statement: Select[Any], *ids: str) -> Row[Any]:
    """The row of the statement. Raises `Missing` for the last of `ids` if there is no row,
    or if one of the ids is longer than any stored id, or cannot be stored in a column."""
    row = connection.execute(statement).first() if all(map(is_id, ids)) else None
    if row is None:
        raise Missing(ids[-1])
    return row


def is_id(text: str) -> bool:
    """True if a row may have this id: it is not too long, and a column can store it."""
    return len(text) <= _ID_CHARACTERS and is_text(text)
