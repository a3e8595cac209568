"""Requests at once, which servers that share a database hold by leases."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "running",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("until_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "holder", name=op.f("pk_running")),
    )
    op.create_index(op.f("ix_running_until_at"), "running", ["until_at"])


def downgrade() -> None:
    op.drop_table("running")
