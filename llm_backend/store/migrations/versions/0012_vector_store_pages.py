"""Vector store pages: the files of a store in the order in which they are listed."""

from alembic import op

revision = "0012"
down_revision = "0011"

_NAME = "ix_vector_store_files_store_seq_created_at_seq"


def upgrade() -> None:
    op.create_index(op.f(_NAME), "vector_store_files", ["store_seq", "created_at", "seq"])


def downgrade() -> None:
    op.drop_index(op.f(_NAME), "vector_store_files")
