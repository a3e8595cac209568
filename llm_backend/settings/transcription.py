"""Settings of transcription."""

from pydantic import BaseModel, Field

from llm_backend.settings.model_entry import Bytes


class TranscriptionSettings(BaseModel):
    """Local models that transcribe recordings."""

    transcription_concurrency: int = Field(
        4,
        ge=1,
        description="Recordings that one process transcribes at once, window by window in turns; "
        "others wait, as many as `queue_limit` and as long as `queue_deadline_s`.",
    )
    transcription_limit_bytes: Bytes = Field(
        512 * 1024 * 1024, description="Largest file of a recording, in bytes."
    )
    transcription_limit_s: int = Field(
        21_600, ge=1, description="Longest recording, in seconds of sound."
    )
