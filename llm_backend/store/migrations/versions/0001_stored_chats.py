"""Stored chats."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "chats",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("response", sa.JSON(), nullable=False),
        sa.CheckConstraint("status IN ('completed', 'incomplete')", name=op.f("ck_chats_status")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_chats")),
        sa.UniqueConstraint("id", name=op.f("uq_chats_id")),
    )
    op.create_index(op.f("ix_chats_created_at_seq"), "chats", ["created_at", "seq"])
    op.create_index(op.f("ix_chats_model_created_at_seq"), "chats", ["model", "created_at", "seq"])
    op.create_table(
        "chat_messages",
        sa.Column("chat_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_seq"],
            ["chats.seq"],
            name=op.f("fk_chat_messages_chat_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("chat_seq", "position", name=op.f("pk_chat_messages")),
    )
    op.create_table(
        "chat_metadata",
        sa.Column("chat_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_seq"],
            ["chats.seq"],
            name=op.f("fk_chat_metadata_chat_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("chat_seq", "key", name=op.f("pk_chat_metadata")),
    )
    op.create_index(
        op.f("ix_chat_metadata_key_value_created_at_chat_seq"),
        "chat_metadata",
        ["key", "value", "created_at", "chat_seq"],
    )


def downgrade() -> None:
    op.drop_table("chat_metadata")
    op.drop_table("chat_messages")
    op.drop_table("chats")
