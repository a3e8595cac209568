"""Vector stores that are deleted, but whose rows are deleted later, some at a time. The words of
all chats are indexed again, because those of more scripts are whole now."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("vector_stores", sa.Column("deleted_at", sa.BigInteger()))
    op.execute(
        "INSERT INTO unindexed_chats (chat_seq) SELECT seq FROM chats "
        "WHERE seq NOT IN (SELECT chat_seq FROM unindexed_chats)"
    )


def downgrade() -> None:
    deleted = "(SELECT seq FROM vector_stores WHERE deleted_at IS NOT NULL)"
    files = f"(SELECT seq FROM vector_store_files WHERE store_seq IN {deleted})"
    # SQLite's migrations run without foreign keys, so that nothing cascades.
    for name, rows in (
        ("vector_store_chunks", f"file_seq IN {files}"),
        ("vector_store_files", f"store_seq IN {deleted}"),
        ("vector_store_batches", f"store_seq IN {deleted}"),
        ("vector_stores", "deleted_at IS NOT NULL"),
    ):
        op.execute(f"DELETE FROM {name} WHERE {rows}")  # constant
    with op.batch_alter_table("vector_stores") as table:
        table.drop_column("deleted_at")
