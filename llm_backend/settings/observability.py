"""Settings of logs and traces."""

from typing import Literal

from pydantic import BaseModel, Field, field_validator

from llm_backend.settings.kinds import environment_names


class ObservabilitySettings(BaseModel):
    """Logs and traces."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        validation_alias=environment_names("log_level", "LOG_LEVEL"),
        description="Lowest level that is logged.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of log lines: `text` or `json`."
    )
    log_prompts: bool = Field(False, description="Log JSON request bodies; never keys.")
    log_stat: bool = Field(
        False, description="Log tokens, seconds and speed of each answer of a local model."
    )
    log_all: bool = Field(False, description="Both `log_prompts` and `log_stat`.")
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://.+",
        validation_alias=environment_names("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base URL of a collector for traces (OTLP over HTTP); no traces if unset.",
    )

    @property
    def logs_prompts(self) -> bool:
        """True if request bodies are logged."""
        return self.log_prompts or self.log_all

    @property
    def logs_statistics(self) -> bool:
        """True if tokens and times of answers are logged."""
        return self.log_stat or self.log_all

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
