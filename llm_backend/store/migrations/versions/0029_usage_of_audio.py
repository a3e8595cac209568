"""Columns of tokens of audio, by the API's word."""

from alembic import op

revision = "0029"
down_revision = "0028"

_RENAMED = {
    "input_sound_tokens": "input_audio_tokens",
    "cached_sound_tokens": "cached_audio_tokens",
    "output_sound_tokens": "output_audio_tokens",
}


def upgrade() -> None:
    for old, new in _RENAMED.items():
        op.execute(f"ALTER TABLE usage RENAME COLUMN {old} TO {new}")


def downgrade() -> None:
    for old, new in _RENAMED.items():
        op.execute(f"ALTER TABLE usage RENAME COLUMN {new} TO {old}")
