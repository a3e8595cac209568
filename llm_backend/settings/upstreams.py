"""Settings of the upstreams and their routes."""

from typing import Any

from pydantic import BaseModel, Field, field_validator

from llm_backend.home_folder import expand_home
from llm_backend.settings.environment import variable
from llm_backend.settings.kinds import Names, Secret, environment_names
from llm_backend.settings.upstream_entry import UpstreamEntry


class UpstreamsSettings(BaseModel):
    """Other servers that answer requests which are not answered locally."""

    openai_api_key: Secret | None = Field(
        None,
        validation_alias=environment_names("openai_api_key", "OPENAI_API_KEY"),
        description="Key for the upstream; with it, requests that are not local are relayed.",
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=environment_names("openai_base_url", "OPENAI_BASE_URL"),
        description="Base URL of the upstream; any server that speaks OpenAI's API.",
    )
    upstream_connect_timeout_s: float = Field(
        10,
        gt=0,
        description="Timeout in seconds for connecting, and of the wait before it while the "
        "upstream has 1000 requests.",
    )
    upstream_idle_timeout_s: float = Field(
        600, gt=0, description="Timeout in seconds between two chunks of an upstream's answer."
    )
    upstream_check_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="Bytes of an upstream's JSON answer that are buffered until it is complete: "
        "an answer that is not JSON becomes a 502, and another upstream is tried. Of a longer "
        "answer only the beginning is checked.",
    )
    messages_max_tokens: int = Field(
        4096,
        ge=1,
        description="Limit of tokens of a chat or a response that sets none and is answered by an "
        "upstream of the kind `anthropic`, which requires a limit.",
    )
    backends: tuple[UpstreamEntry, ...] = Field(
        (),
        description="Upstreams, any number; the settings of each are below. `openai_api_key` adds "
        "one more, named `openai`, that serves all models.",
    )
    routes: dict[str, Names] = Field(
        {},
        description="Further model names, each with its targets in order of preference: `NAME: "
        "MODEL, MODEL@UPSTREAM, ...`. A target is tried if those before it fail.",
    )
    operations: dict[str, str] = Field(
        {},
        description="Upstreams of operations without a model, by operationId or tag: `Images: "
        "NAME`.",
    )
    strict: bool = Field(
        False,
        description="Refuse unknown fields in relayed requests; otherwise they are passed on, and "
        "listed in the answer's `x-llm-backend-unknown-fields`.",
    )

    @field_validator("backends", mode="before")
    @classmethod
    def _resolve_keys(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return [_resolve_key(one) if isinstance(one, dict) else one for one in value]

    @property
    def has_upstream(self) -> bool:
        """True if another server answers some requests, also if it is only an image server."""
        return bool(self.backends) or self.openai_api_key is not None

    @property
    def has_relay_upstream(self) -> bool:
        """True if there is an upstream for requests that are not local; an image server is none."""
        relayed = [one for one in self.backends if one.kind != "sdapi"]
        return bool(relayed) or self.openai_api_key is not None


def _resolve_key(given: dict[str, Any]) -> dict[str, Any]:
    """Replaces the key's variable or file by the key itself."""
    entry = {**given}
    name, file = entry.pop("api_key_env", None), entry.pop("api_key_file", None)
    if sum(one is not None for one in (name, file, entry.get("api_key"))) > 1:
        raise ValueError(
            "give an upstream's key once: as `api_key`, `api_key_env` or `api_key_file`"
        )
    if name is not None:
        entry["api_key"] = variable(str(name))
        if not entry["api_key"]:
            raise ValueError(
                f"the variable {name}, which holds an upstream's key, is unset or empty"
            )
    if file is not None:
        try:
            entry["api_key"] = expand_home(str(file)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"the file {file}, which holds an upstream's key, cannot be read"
            ) from error
    return entry
