"""Settings of keys, limits and costs."""

from pydantic import BaseModel, ConfigDict, Field

from llm_backend.settings.kinds import Secrets


class Price(BaseModel):
    """US dollars per million tokens; `cached_input` is `input` if unset. `image` is the price of
    each image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(0, ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float = Field(0, ge=0)
    image: float = Field(0, ge=0)


class AccessSettings(BaseModel):
    """Keys, rate limits, queues, usage and prices."""

    api_keys: Secrets = Field(
        (),
        description="Keys with all permissions: they administer, and call models within the "
        "default project. `llm-backend keys create` makes further keys. Without any key a server "
        "on loopback is open.",
    )
    keys_refresh_s: float = Field(
        2,
        gt=0,
        description="Maximum time in seconds until a process sees changes that another process "
        "made to keys and projects.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Requests per minute of one project to one model, unless the project has a "
        "rate limit of its own for the model; no limit if unset.",
    )
    tokens_per_minute: int | None = Field(
        None,
        ge=1,
        description="Tokens per minute of one project with one model; no limit if unset.",
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests per minute of one key to all models; no limit if unset."
    )
    key_tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens per minute of one key with all models; no limit if unset."
    )
    key_concurrent_requests: int | None = Field(
        None, ge=1, description="Concurrent requests of one key; no limit if unset."
    )
    project_concurrent_requests: int | None = Field(
        None, ge=1, description="Concurrent requests of one project; no limit if unset."
    )
    concurrent_requests: int | None = Field(
        None,
        ge=1,
        description="Concurrent requests to models in one process; further requests wait in a "
        "queue that serves keys in turn. If unset, only the queues of the models limit them.",
    )
    waiting_requests: int = Field(
        1000,
        ge=0,
        description="Maximum number of requests that wait because of `concurrent_requests`.",
    )
    waiting_deadline_s: float = Field(
        60, gt=0, description="Maximum time in seconds that such a request waits."
    )
    run_deadline_s: float | None = Field(
        None,
        gt=0,
        description="Maximum time in seconds that a request to a model runs, without its time in "
        "the queue; no limit if unset.",
    )
    usage_days: int = Field(
        400, ge=32, description="Days that usage is stored; a month at least, for spend limits."
    )
    audit_days: int | None = Field(
        None,
        ge=1,
        description="Days that entries of the audit log are stored; forever if unset.",
    )
    prices: dict[str, Price] = Field(
        {},
        description="Prices of models by name, in US dollars per million tokens: `{MODEL: {input: "
        "2.5, cached_input: 1.25, output: 10}}`, and per image: `{MODEL: {image: 0.02}}`. "
        "Costs and spend limits use them.",
    )
