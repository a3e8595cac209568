"""Answers to requests with an idempotency key, for servers that share a database."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "kept_answers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_kept_answers")),
    )
    op.create_index(op.f("ix_kept_answers_size_bytes"), "kept_answers", ["size_bytes"])
    op.create_index(op.f("ix_kept_answers_until_at"), "kept_answers", ["until_at"])


def downgrade() -> None:
    op.drop_table("kept_answers")
