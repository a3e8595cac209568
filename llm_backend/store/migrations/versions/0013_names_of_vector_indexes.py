"""The vector index that has a store's vectors is named; its files are counted by an index-only
scan."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_OLD = "ix_vector_store_files_store_seq_status"
_NEW = "ix_vector_store_files_store_seq_status_usage_bytes"


def upgrade() -> None:
    op.add_column("vector_stores", sa.Column("index_name", sa.Text(), nullable=True))
    op.create_index(op.f(_NEW), "vector_store_files", ["store_seq", "status", "usage_bytes"])
    op.drop_index(op.f(_OLD), "vector_store_files")


def downgrade() -> None:
    op.create_index(op.f(_OLD), "vector_store_files", ["store_seq", "status"])
    op.drop_index(op.f(_NEW), "vector_store_files")
    op.drop_column("vector_stores", "index_name")
