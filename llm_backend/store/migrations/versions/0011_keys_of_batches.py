"""Batches belong to projects, and know the key that their lines are asked with."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    with op.batch_alter_table("batches") as batch:
        batch.add_column(sa.Column("key_id", sa.Text(), nullable=True))
    op.execute("UPDATE batches SET key_id = owner, owner = NULL")


def downgrade() -> None:
    op.execute("UPDATE batches SET owner = key_id")
    with op.batch_alter_table("batches") as batch:
        batch.drop_column("key_id")
