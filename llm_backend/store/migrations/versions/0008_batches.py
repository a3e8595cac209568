"""Batches, and the answers to their lines."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=True),
        sa.Column("output_lifetime_s", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.JSON(), nullable=False),
        sa.Column("errors", sa.JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("usage", sa.JSON(), nullable=True),
        sa.Column("output_file_id", sa.Text(), nullable=True),
        sa.Column("error_file_id", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed', "
            "'expired', 'cancelling', 'cancelled')",
            name=op.f("ck_batches_status"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_batches")),
        sa.UniqueConstraint("id", name=op.f("uq_batches_id")),
    )
    op.create_index(op.f("ix_batches_created_at_seq"), "batches", ["created_at", "seq"])
    op.create_index(op.f("ix_batches_input_file_id"), "batches", ["input_file_id"])
    op.create_index(op.f("ix_batches_status_expires_at"), "batches", ["status", "expires_at"])
    op.create_table(
        "batch_lines",
        sa.Column("batch_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("input_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("reasoning_tokens", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_seq"],
            ["batches.seq"],
            name=op.f("fk_batch_lines_batch_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("batch_seq", "line", name=op.f("pk_batch_lines")),
    )
    op.create_index(
        op.f("ix_batch_lines_batch_seq_is_error_line"),
        "batch_lines",
        ["batch_seq", "is_error", "line"],
    )


def downgrade() -> None:
    op.drop_table("batch_lines")
    op.drop_table("batches")
