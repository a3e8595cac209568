"""Settings of realtime sessions."""

from pydantic import BaseModel, Field


class RealtimeSettings(BaseModel):
    """Realtime sessions with local models."""

    realtime_sessions_limit: int = Field(
        64, ge=1, description="Maximum number of realtime sessions of one process."
    )
    realtime_session_s: float = Field(
        3600, gt=0, description="Seconds after which a realtime session ends."
    )
