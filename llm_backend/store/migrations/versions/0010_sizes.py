"""How much is kept, and when a conversation was last added to."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_SIZED = ("chats", "responses", "items", "files")
_SIZES = {
    "chats": "length(CAST(request AS TEXT)) + length(CAST(response AS TEXT)) + COALESCE("
    "(SELECT SUM(length(CAST(message AS TEXT))) FROM chat_messages WHERE chat_seq = seq), 0)",
    "responses": "length(CAST(body AS TEXT))",
    "items": "length(CAST(item AS TEXT))",
}


def upgrade() -> None:
    for name in _SIZED:
        op.add_column(name, _number("size_bytes"))
    op.add_column("conversations", _number("changed_at"))
    for name, size_bytes in _SIZES.items():
        op.execute(f"UPDATE {name} SET size_bytes = {size_bytes}")
    op.execute("UPDATE conversations SET changed_at = created_at")
    _size_files()
    for name in _SIZED:
        op.create_index(op.f(f"ix_{name}_size_bytes"), name, ["size_bytes"])
    op.create_index(op.f("ix_conversations_changed_at"), "conversations", ["changed_at"])
    op.create_index(op.f("ix_responses_previous_id"), "responses", ["previous_id"])


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))


def _size_files() -> None:
    """A file is as large as the blobs that it names."""
    files = sa.table(
        "files", sa.column("seq"), sa.column("size_bytes"), sa.column("content", sa.JSON())
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(files.c.seq, files.c.content)).all():
        size_bytes = sum(blob["size_bytes"] for blob in row.content)
        this = sa.update(files).where(files.c.seq == row.seq)
        connection.execute(this.values(size_bytes=size_bytes))


def downgrade() -> None:
    op.drop_index(op.f("ix_responses_previous_id"), "responses")
    op.drop_index(op.f("ix_conversations_changed_at"), "conversations")
    for name in _SIZED:
        op.drop_index(op.f(f"ix_{name}_size_bytes"), name)
        with op.batch_alter_table(name) as table:
            table.drop_column("size_bytes")
    with op.batch_alter_table("conversations") as table:
        table.drop_column("changed_at")
