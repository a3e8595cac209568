"""Jobs that can be done at one place only, where the vector index is, say."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("place", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "place")
