"""What a model costs."""

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Price"]


class Price(BaseModel):
    """US dollars for a million tokens; cached input costs what other input does where nothing is
    said of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float = Field(0, ge=0)
