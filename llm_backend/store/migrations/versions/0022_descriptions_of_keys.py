"""Descriptions of keys: what each is for."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("description", sa.Text()))


def downgrade() -> None:
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("description")
