"""One entry of the setting `backends`: a server that answers what this one does not."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from llm_backend.settings.kinds import Secret, not_empty

__all__ = ["BackendSettings"]


class BackendSettings(BaseModel):
    """Everything that can be set of one upstream, each with its default and unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$", description="What routes, operations and logs call it."
    )
    base_url: str = Field(
        pattern="^https?://.+", description="Base URL, `http(s)://HOST[:PORT][/PATH]`."
    )
    api_key: Secret | None = Field(
        None, description="Its key. Better in the environment or in a file:"
    )
    api_key_env: str | None = Field(None, description="The environment variable that holds it.")
    api_key_file: str | None = Field(None, description="The file that holds it.")
    headers: dict[str, SecretStr] = Field(
        {}, description="Headers that it gets besides, or in place of a client's."
    )
    pass_headers: tuple[str, ...] = Field(
        (),
        description="Names or shell patterns of further headers that pass to it from clients and "
        "back from it. Credentials, cookies and what proxies add never do.",
    )
    kind: Literal["openai", "azure"] = Field(
        "openai", description="How it is addressed: as OpenAI, or as Azure's deployments."
    )
    api_version: str | None = Field(None, description="Azure's `api-version`.")
    wire: Literal["chat", "responses", "both"] = Field(
        "both", description="Which of the two its models are asked by."
    )
    models: tuple[str, ...] = Field(
        (),
        description="Names or shell patterns of the models that it serves; all that no other "
        "backend names, where none is given.",
    )
    weight: float = Field(1, gt=0, le=1000, description="Its share beside others of a model.")
    concurrency: int = Field(1000, ge=1, description="Requests that it gets at once at most.")
    connect_timeout_s: float = Field(10, gt=0, description="Seconds to connect.")
    first_byte_timeout_s: float | None = Field(
        None, gt=0, description="Seconds to the answer's headers; as `idle_timeout_s` where unset."
    )
    idle_timeout_s: float = Field(
        600, gt=0, description="Seconds between two pieces of its answer."
    )
    total_timeout_s: float | None = Field(
        None, gt=0, description="Seconds for a whole answer; any number where unset."
    )
    honours_idempotency_key: bool = Field(
        False,
        description="Whether it does a request with an `Idempotency-Key` once, however often it "
        "comes: one that it may have got already is sent to it again only then.",
    )

    _check_empty = field_validator("*", mode="before")(not_empty)

    @field_validator("models", "pass_headers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(word.strip() for word in value.split(",") if word.strip())

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == "azure" and not (self.models and self.api_version):
            raise ValueError("an `azure` backend needs `models` (its deployments) and api_version")
        if self.kind != "azure" and self.api_version:
            raise ValueError("`api_version` is for the kind `azure`")
        return self
