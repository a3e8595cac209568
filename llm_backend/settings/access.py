"""Who may use the server, how much of it, and what that costs."""

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Secrets
from llm_backend.settings.price import Price

__all__ = ["AccessSettings"]


class AccessSettings(BaseModel):
    """Who may use the server, how much of it, and what that costs."""

    api_keys: Secrets = Field(
        (),
        description="Keys for everything: they administer, and call models within the default "
        "project. Further ones are made by `llm-backend keys create`; open on loopback where there "
        "is none.",
    )
    keys_refresh_s: float = Field(
        2,
        gt=0,
        description="Seconds after which what another process changes at keys and projects is "
        "known at the latest.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Requests a minute of a project to one model, where the project has no rate "
        "limit of its own for it; no limit where unset.",
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute of a project with one model, likewise."
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests a minute of one key to all models; no limit where unset."
    )
    key_tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute of one key with all models, likewise."
    )
    key_concurrent_requests: int | None = Field(
        None, ge=1, description="Requests of one key that are answered at once, likewise."
    )
    project_concurrent_requests: int | None = Field(
        None, ge=1, description="Requests of one project that are answered at once, likewise."
    )
    concurrent_requests: int | None = Field(
        None,
        ge=1,
        description="Requests to models that a process answers at once; further ones wait, and "
        "keys take turns. No limit but the models' own queues where unset.",
    )
    waiting_requests: int = Field(
        1000, ge=0, description="Requests that wait for one of `concurrent_requests` at most."
    )
    waiting_deadline_s: float = Field(
        60, gt=0, description="Seconds that such a request waits at most."
    )
    run_deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that a request to a model runs at most, without its waiting; no limit "
        "where unset.",
    )
    usage_days: int = Field(
        400, ge=32, description="Days that usage is kept; a month at least, for spend limits."
    )
    audit_days: int | None = Field(
        None,
        ge=1,
        description="Days that entries of the audit log are kept; for ever where unset.",
    )
    prices: dict[str, Price] = Field(
        {},
        description="What models cost, by name, in US dollars for a million tokens: "
        "`{MODEL: {input: 2.5, cached_input: 1.25, output: 10}}`. Costs and spend limits are "
        "reckoned with them.",
    )
