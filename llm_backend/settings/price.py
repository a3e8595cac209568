"""The price of one model."""

from pydantic import BaseModel, ConfigDict, Field


class Price(BaseModel):
    """US dollars per million tokens; `cached_input` is `input` if unset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float = Field(0, ge=0)
