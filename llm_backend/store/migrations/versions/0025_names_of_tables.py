"""The names by which the program calls its tables.

A table is copied: SQLite cannot rename the constraints of one, and these have few rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"

_NAMES = {
    "loose_blobs": "orphans",
    "kept_answers": "stored_answers",
    "running": "concurrency_leases",
    "unsettled": "deferred_usage",
}
_INDEXES = {
    "kept_answers": ("until_at", "size_bytes"),
    "running": ("until_at",),
    "unsettled": ("created_at",),
}
_COLUMNS = (
    ("orphans", "is_doomed", "is_marked_deleted"),
    ("jobs", "place", "affinity"),
)


def upgrade() -> None:
    for old, new in _NAMES.items():
        _rename(old, new, _INDEXES.get(old, ()))
    for table, old, new in _COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")


def downgrade() -> None:
    for table, old, new in _COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    for old, new in _NAMES.items():
        _rename(new, old, _INDEXES.get(old, ()))


def _rename(old: str, new: str, indexes: tuple[str, ...]) -> None:
    if op.get_bind().dialect.name == "postgresql":  # an older server may be writing to it
        op.execute(f"LOCK TABLE {old} IN ACCESS EXCLUSIVE MODE")
    found = sa.Table(old, sa.MetaData(), autoload_with=op.get_bind())
    key = sa.PrimaryKeyConstraint(*found.primary_key.columns.keys(), name=op.f(f"pk_{new}"))
    columns = [sa.Column(one.name, one.type, nullable=one.nullable) for one in found.columns]
    op.create_table(new, *columns, key)
    names = ", ".join(found.columns.keys())
    op.execute(f"INSERT INTO {new} ({names}) SELECT {names} FROM {old}")
    op.drop_table(old)
    for column in indexes:
        op.create_index(op.f(f"ix_{new}_{column}"), new, [column])
