"""Vector stores that are deleted, but whose rows are deleted later, some at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.add_column("vector_stores", sa.Column("deleted_at", sa.BigInteger()))


def downgrade() -> None:
    op.execute("DELETE FROM vector_stores WHERE deleted_at IS NOT NULL")
    with op.batch_alter_table("vector_stores") as table:
        table.drop_column("deleted_at")
