"""How many bytes all files and parts of uploads have, as one number."""

from alembic import op

revision = "0019"
down_revision = "0018"

_TOTAL = " + ".join(
    f"(SELECT COALESCE(SUM(size_bytes), 0) FROM {name})" for name in ("files", "upload_parts")
)


def upgrade() -> None:
    op.execute(f"INSERT INTO counters (name, value) VALUES ('file_bytes', {_TOTAL})")


def downgrade() -> None:
    op.execute("DELETE FROM counters WHERE name = 'file_bytes'")
