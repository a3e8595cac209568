"""Client secrets of realtime sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.create_table(
        "client_secrets",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("session", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_client_secrets")),
    )
    op.create_index(op.f("ix_client_secrets_expires_at"), "client_secrets", ["expires_at"])


def downgrade() -> None:
    op.drop_table("client_secrets")
