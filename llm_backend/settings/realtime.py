"""Settings of realtime sessions."""

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import NonEmptyText


class RealtimeSettings(BaseModel):
    """Realtime sessions with local models."""

    realtime_sessions_limit: int = Field(
        64, ge=1, description="Maximum number of realtime sessions of one process."
    )
    realtime_key_sessions_limit: int = Field(
        32,
        ge=1,
        description="Maximum number of realtime sessions of one key in one process, so that one "
        "key does not take all.",
    )
    realtime_client_secrets_limit: int = Field(
        1000,
        ge=1,
        description="Maximum number of client secrets of one key that have not expired.",
    )
    realtime_session_s: float = Field(
        3600, gt=0, description="Seconds after which a realtime session ends."
    )
    realtime_speech_model: NonEmptyText = Field(
        "builtin-voice",
        description="Model that reads the answers of realtime sessions aloud: `builtin-voice`, an "
        "alias or a route of it, or a model of an upstream.",
    )
    realtime_transcription_model: NonEmptyText | None = Field(
        None,
        description="Model that transcribes the audio of realtime sessions that name none; by "
        "default such audio is refused.",
    )
    realtime_input_limit_s: int = Field(
        300, ge=1, description="Longest turn of a realtime session, in seconds of audio."
    )
