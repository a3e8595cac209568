"""Events of responses that are answered in the background."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "response_events",
        sa.Column("response_seq", _SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("last_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["response_seq"],
            ["responses.seq"],
            name=op.f("fk_response_events_response_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("response_seq", "last_number", name=op.f("pk_response_events")),
    )


def downgrade() -> None:
    op.drop_table("response_events")
