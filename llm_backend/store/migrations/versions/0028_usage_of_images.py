"""Columns of tokens of images, by the API's word."""

from alembic import op

revision = "0028"
down_revision = "0027"

_RENAMED = {
    "input_picture_tokens": "input_image_tokens",
    "cached_picture_tokens": "cached_image_tokens",
    "output_picture_tokens": "output_image_tokens",
}


def upgrade() -> None:
    for old, new in _RENAMED.items():
        op.execute(f"ALTER TABLE usage RENAME COLUMN {old} TO {new}")


def downgrade() -> None:
    for old, new in _RENAMED.items():
        op.execute(f"ALTER TABLE usage RENAME COLUMN {new} TO {old}")
