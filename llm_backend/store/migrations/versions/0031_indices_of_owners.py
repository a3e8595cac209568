"""Indices by which the lists of one project are read without the rows of others, and one by which
the files of a vector store are counted without their rows."""

from alembic import op

revision = "0031"
down_revision = "0030"

_LISTED = ("batches", "chats", "files", "vector_stores")
_COUNTED = ["store_seq", "status", "usage_bytes"]


def upgrade() -> None:
    for table in _LISTED:
        columns = ["owner", "created_at", "seq"]
        op.create_index(op.f(f"ix_{table}_owner_created_at_seq"), table, columns)
    op.drop_index(_name(_COUNTED))
    op.create_index(_name([*_COUNTED, "owner"]), "vector_store_files", [*_COUNTED, "owner"])


def downgrade() -> None:
    op.drop_index(_name([*_COUNTED, "owner"]))
    op.create_index(_name(_COUNTED), "vector_store_files", _COUNTED)
    for table in _LISTED:
        op.drop_index(op.f(f"ix_{table}_owner_created_at_seq"))


def _name(columns: list[str]) -> str:
    return op.f(f"ix_vector_store_files_{'_'.join(columns)}")
