"""What is told to the person who runs the server."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from llm_backend.settings.kinds import also

__all__ = ["ObservabilitySettings"]


class ObservabilitySettings(BaseModel):
    """What is told to the person who runs the server."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=also("log_level", "LOG_LEVEL"), description="Least level logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of log lines.")
    log_prompts: bool = Field(False, description="Log JSON request bodies; never keys.")
    log_stat: bool = Field(
        False, description="Log tokens, seconds and speed of each answer of a local model."
    )
    log_all: bool = Field(False, description="Both of these.")
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://.+",
        validation_alias=also("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base URL of a collector that takes traces (OTLP over HTTP); none are made"
        " where none is given.",
    )

    @property
    def logs_prompts(self) -> bool:
        """Whether bodies are logged."""
        return self.log_prompts or self.log_all

    @property
    def logs_statistics(self) -> bool:
        """Whether what answers took is logged."""
        return self.log_stat or self.log_all

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
