"""Items once: no list holds an item twice. Events count as a part of their response's size, and
the sizes of parts of uploads have an index.
"""

import json
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_HOLDERS = {"conversation_items": "conversation_seq", "response_items": "response_seq"}


def upgrade() -> None:
    for table, holder in _HOLDERS.items():
        _copy_repeated_items(table, holder)
        columns = [holder, "item_seq"]
        op.create_index(op.f(f"ix_{table}_{holder}_item_seq"), table, columns, unique=True)
    op.execute(
        "UPDATE responses SET size_bytes = size_bytes + (SELECT coalesce(sum(length(events)), 0) "
        "FROM response_events WHERE response_seq = responses.seq)"
    )
    op.create_index(op.f("ix_upload_parts_size_bytes"), "upload_parts", ["size_bytes"])


def _copy_repeated_items(table: str, holder: str) -> None:
    """Replaces each repetition of an item in a list by a copy with an id of its own."""
    again = sa.text(
        f"SELECT held.{holder} AS holder, held.position, items.id, items.item "
        f"FROM {table} AS held JOIN items ON items.seq = held.item_seq "
        f"WHERE EXISTS (SELECT 1 FROM {table} AS first WHERE first.{holder} = held.{holder} "
        "AND first.item_seq = held.item_seq AND first.position < held.position)"
    )
    connection = op.get_bind()
    for row in connection.execute(again.columns(item=sa.JSON())).all():
        seq = _insert(connection, {**row.item, "id": f"{row.id}_{uuid.uuid4().hex[:8]}"})
        this = sa.text(
            f"UPDATE {table} SET item_seq = :seq WHERE {holder} = :holder AND position = :position"
        )
        connection.execute(this, {"seq": seq, "holder": row.holder, "position": row.position})


def _insert(connection: sa.Connection, item: dict[str, object]) -> int:
    text = json.dumps(item, separators=(",", ":"))
    items = sa.table(
        "items",
        sa.column("seq", sa.BigInteger()),
        sa.column("id", sa.Text()),
        sa.column("item", sa.JSON()),
        sa.column("size_bytes", sa.BigInteger()),
    )
    row = {"id": item["id"], "item": item, "size_bytes": len(text)}
    return int(connection.execute(sa.insert(items).values(row).returning(items.c.seq)).scalar_one())


def downgrade() -> None:
    op.drop_index(op.f("ix_upload_parts_size_bytes"), "upload_parts")
    for table, holder in _HOLDERS.items():
        op.drop_index(op.f(f"ix_{table}_{holder}_item_seq"), table)
