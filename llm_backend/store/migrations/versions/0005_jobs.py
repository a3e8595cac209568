"""Jobs: work that outlives its request."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", _SEQUENCE, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_kind_due_at_seq"), "jobs", ["kind", "due_at", "seq"])
    op.create_index(op.f("ix_jobs_kind_subject"), "jobs", ["kind", "subject"])
    op.create_index(op.f("ix_jobs_lease"), "jobs", ["lease"])


def downgrade() -> None:
    op.drop_table("jobs")
