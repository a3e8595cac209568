"""One entry of the setting `backends`: an upstream server."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llm_backend.settings.kinds import HeaderValue, Secret, require_text, split_commas

HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]


class UpstreamEntry(BaseModel):
    """All settings of one upstream, each with its default and unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Name of the upstream in routes, operations and logs.",
    )
    base_url: str = Field(
        pattern="^https?://.+", description="Base URL, `http(s)://HOST[:PORT][/PATH]`."
    )
    api_key: Secret | None = Field(
        None, description="API key of the upstream; safer in `api_key_env` or `api_key_file`."
    )
    api_key_env: str | None = Field(None, description="Environment variable that holds the key.")
    api_key_file: str | None = Field(None, description="File that holds the key.")
    headers: dict[HeaderName, HeaderValue] = Field(
        {},
        description="Headers that are sent to it, in place of a client's headers of these names.",
    )
    pass_headers: tuple[str, ...] = Field(
        (),
        description="Names or shell patterns of further headers that are passed from clients to "
        "it and back. Credentials, cookies and headers that proxies add are never passed.",
    )
    kind: Literal["openai", "azure", "anthropic", "sdapi"] = Field(
        "openai",
        description="Its addressing and key: OpenAI's paths, Azure's deployments, or Anthropic's "
        "API (Messages). `sdapi` is an image server with `/sdapi/v1`, "
        "whose base URL has no path: it answers `/v1/images`, and nothing else.",
    )
    api_version: str | None = Field(
        None,
        description="Azure's `api-version`, or Anthropic's `anthropic-version` (2023-06-01 if "
        "unset).",
    )
    wire: Literal["chat", "responses", "both"] = Field(
        "both",
        description="Operations that its models support: chat completions, responses, or both.",
    )
    models: tuple[str, ...] = Field(
        (),
        description="Names or shell patterns of its models; if none is given, all models that no "
        "other upstream names.",
    )
    weight: float = Field(
        1, gt=0, le=1000, description="Its share of requests beside other upstreams of a model."
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        description="Maximum number of concurrent requests; 1000 if unset, and 1 for the kind "
        "`sdapi`: an image server's previews and interruptions affect whatever it is drawing.",
    )
    connect_timeout_s: float = Field(
        10,
        gt=0,
        description="Timeout in seconds for connecting, and of the wait before it while all "
        "upstreams of the model have `concurrency` requests; the longest one of these upstreams "
        "counts for the wait.",
    )
    first_byte_timeout_s: float | None = Field(
        None,
        gt=0,
        description="Timeout in seconds until the answer's headers; `idle_timeout_s` if unset.",
    )
    idle_timeout_s: float = Field(
        600, gt=0, description="Timeout in seconds between two chunks of its answer."
    )
    total_timeout_s: float | None = Field(
        None, gt=0, description="Timeout in seconds for a whole answer; no limit if unset."
    )
    honours_idempotency_key: bool = Field(
        False,
        description="Set this if the upstream executes a request with an `Idempotency-Key` only "
        "once, even if it is sent twice. Only then is a POST that may have reached it retried.",
    )

    _check_empty = field_validator("*", mode="before")(require_text)

    _split_texts = field_validator("models", "pass_headers", mode="before")(split_commas)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kind == "azure" and not (self.models and self.api_version):
            raise ValueError(
                "an `azure` upstream needs `models` (its deployments) and `api_version`"
            )
        if self.kind == "sdapi" and not self.models:
            raise ValueError(
                "an `sdapi` upstream needs `models` (names or patterns of checkpoints)"
            )
        if self.kind in ("openai", "sdapi") and self.api_version:
            raise ValueError("`api_version` is only for the kinds `azure` and `anthropic`")
        if self.kind == "anthropic" and self.wire != "both":
            raise ValueError("an `anthropic` upstream supports messages; leave `wire` out")
        if self.kind == "sdapi" and self.wire != "both":
            raise ValueError("an `sdapi` upstream makes images; leave `wire` out")
        return self
