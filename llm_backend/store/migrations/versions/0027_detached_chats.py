"""Detached chats in progress, which servers that share a database find by their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    op.create_table(
        "detached_chats",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_detached_chats")),
    )
    for column in ("holder", "until_at"):
        op.create_index(op.f(f"ix_detached_chats_{column}"), "detached_chats", [column])


def downgrade() -> None:
    op.drop_table("detached_chats")
