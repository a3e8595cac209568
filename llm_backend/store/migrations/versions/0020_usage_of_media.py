"""Of the tokens that were used, those of pictures and of sounds."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_ADDED = (
    "input_picture_tokens",
    "input_sound_tokens",
    "cached_picture_tokens",
    "cached_sound_tokens",
    "output_picture_tokens",
    "output_sound_tokens",
)


def upgrade() -> None:
    for name in _ADDED:
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default=sa.text("0"))
        op.add_column("usage", column)


def downgrade() -> None:
    with op.batch_alter_table("usage") as table:
        for name in _ADDED:
            table.drop_column(name)
