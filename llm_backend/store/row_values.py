"""Rows as values and values as rows: a field has the name of its column."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Row, Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

V = TypeVar("V", bound="DataclassInstance")


def value_from(row: Row[Any], kind: type[V], **others: Any) -> V:
    """The value (a dataclass) of a row; `others` are the fields that no column holds as they
    are."""
    names = [field.name for field in fields(kind) if field.name not in others]
    return kind(**{name: getattr(row, name) for name in names}, **others)


def row_from(value: object, table: Table, **others: Any) -> dict[str, Any]:
    """The columns of a table that the value has; `others` are those that it has in another form."""
    names = [column.name for column in table.columns if hasattr(value, column.name)]
    return {name: getattr(value, name) for name in names} | others
