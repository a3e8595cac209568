"""Vector stores."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "vector_stores",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("expires_after_days", sa.Integer(), nullable=True),
        sa.Column("last_active_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("embedding_model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=True),
        sa.Column("is_emptied", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_vector_stores")),
        sa.UniqueConstraint("id", name=op.f("uq_vector_stores_id")),
    )
    op.create_index(op.f("ix_vector_stores_created_at_seq"), "vector_stores", ["created_at", "seq"])
    op.create_index(op.f("ix_vector_stores_expires_at"), "vector_stores", ["expires_at"])

    op.create_table(
        "vector_store_batches",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("store_seq", _SEQUENCE, nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["store_seq"],
            ["vector_stores.seq"],
            name=op.f("fk_vector_store_batches_store_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_vector_store_batches")),
        sa.UniqueConstraint("id", name=op.f("uq_vector_store_batches_id")),
    )
    op.create_index(
        op.f("ix_vector_store_batches_created_at_seq"),
        "vector_store_batches",
        ["created_at", "seq"],
    )
    op.create_index(
        op.f("ix_vector_store_batches_store_seq"), "vector_store_batches", ["store_seq"]
    )

    op.create_table(
        "vector_store_files",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("store_seq", _SEQUENCE, nullable=False),
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("batch_seq", _SEQUENCE, nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("usage_bytes", sa.BigInteger(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("chunking", sa.JSON(), nullable=False),
        sa.CheckConstraint(
            "status IN ('in_progress', 'completed', 'cancelled', 'failed')",
            name=op.f("ck_vector_store_files_status"),
        ),
        sa.ForeignKeyConstraint(
            ["batch_seq"],
            ["vector_store_batches.seq"],
            name=op.f("fk_vector_store_files_batch_seq"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["store_seq"],
            ["vector_stores.seq"],
            name=op.f("fk_vector_store_files_store_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_vector_store_files")),
        sa.UniqueConstraint("id", name=op.f("uq_vector_store_files_id")),
        sa.UniqueConstraint(
            "store_seq", "file_id", name=op.f("uq_vector_store_files_store_seq_file_id")
        ),
    )
    op.create_index(op.f("ix_vector_store_files_batch_seq"), "vector_store_files", ["batch_seq"])
    op.create_index(
        op.f("ix_vector_store_files_created_at_seq"), "vector_store_files", ["created_at", "seq"]
    )
    op.create_index(op.f("ix_vector_store_files_file_id"), "vector_store_files", ["file_id"])
    op.create_index(
        op.f("ix_vector_store_files_store_seq_status"),
        "vector_store_files",
        ["store_seq", "status"],
    )

    op.create_table(
        "vector_store_chunks",
        sa.Column("file_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("point_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("repeated", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["file_seq"],
            ["vector_store_files.seq"],
            name=op.f("fk_vector_store_chunks_file_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("file_seq", "position", name=op.f("pk_vector_store_chunks")),
        sa.UniqueConstraint("point_id", name=op.f("uq_vector_store_chunks_point_id")),
    )


def downgrade() -> None:
    op.drop_table("vector_store_chunks")

    op.drop_table("vector_store_files")

    op.drop_table("vector_store_batches")

    op.drop_table("vector_stores")
