"""Responses, conversations, and the items that they hold."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("item", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_items")),
        sa.UniqueConstraint("id", name=op.f("uq_items_id")),
    )
    _stored_object("conversations", sa.Column("metadata", sa.JSON(), nullable=False))
    _holder("conversation_items", "conversation", "conversations")
    _stored_object(
        "responses",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("previous_id", sa.Text(), nullable=True),
        sa.Column("conversation_id", sa.Text(), nullable=True),
    )
    _holder(
        "response_items",
        "response",
        "responses",
        sa.Column("is_output", sa.Boolean(), nullable=False),
    )


def downgrade() -> None:
    for table in ("response_items", "responses", "conversation_items", "conversations", "items"):
        op.drop_table(table)


def _stored_object(name: str, *parts: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        *parts,
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{name}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{name}_id")),
    )
    op.create_index(op.f(f"ix_{name}_created_at_seq"), name, ["created_at", "seq"])


def _holder(name: str, holder: str, holders: str, *parts: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column(f"{holder}_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("item_seq", _SEQUENCE, nullable=False),
        *parts,
        sa.ForeignKeyConstraint(
            [f"{holder}_seq"],
            [f"{holders}.seq"],
            name=op.f(f"fk_{name}_{holder}_seq"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["item_seq"], ["items.seq"], name=op.f(f"fk_{name}_item_seq")),
        sa.PrimaryKeyConstraint(f"{holder}_seq", "position", name=op.f(f"pk_{name}")),
    )
    op.create_index(op.f(f"ix_{name}_item_seq"), name, ["item_seq"])
