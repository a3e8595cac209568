"""Tables of stored objects, and columns that several tables have."""

from typing import Any  # a column may have any type

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from llm_backend.store.database.metadata import SEQUENCE, metadata
from llm_backend.store.database.ownership import OWNED


def object_table(
    name: str,
    *parts: Column[Any] | CheckConstraint | UniqueConstraint,
    is_owned: bool = True,
) -> Table:
    """A table of objects that clients list by time: the common columns, `parts`, the time index.

    Objects of an owned table are visible to their owners only (`ownership.py`).
    """
    return Table(
        name,
        metadata,
        Column("seq", SEQUENCE, primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
        Column("owner", Text),
        *parts,
        Index(None, "created_at", "seq"),
        info={OWNED: is_owned},
    )


def size_bytes() -> Column[int]:
    """Bytes of a row and of the rows that depend on it, for limits on their total. The column has
    an index, so that the sum reads only the index."""
    return Column("size_bytes", BigInteger, nullable=False, server_default=text("0"), index=True)


def part_of(parent: Table, column: str) -> Column[int]:
    """The first column of the primary key of a table whose rows are deleted with `parent`'s."""
    reference = ForeignKey(parent.c.seq, ondelete="CASCADE")
    return Column(column, SEQUENCE, reference, primary_key=True, autoincrement=False)
