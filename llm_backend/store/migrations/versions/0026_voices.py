"""Voices by a sample, and consents to them."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    consent_columns = (
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
    )
    _create("voice_consents", *consent_columns)
    _create("voices", sa.Column("consent_id", sa.Text(), nullable=False))
    op.create_index(op.f("ix_voices_consent_id"), "voices", ["consent_id"])


def downgrade() -> None:
    op.drop_table("voices")
    op.drop_table("voice_consents")


def _create(table: str, *columns: sa.Column[str]) -> None:
    op.create_table(
        table,
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("name", sa.Text(), nullable=False),
        *columns,
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("id", name=op.f(f"uq_{table}_id")),
    )
    op.create_index(op.f(f"ix_{table}_created_at_seq"), table, ["created_at", "seq"])
    op.create_index(op.f(f"ix_{table}_owner"), table, ["owner"])
    op.create_index(op.f(f"ix_{table}_size_bytes"), table, ["size_bytes"])
