"""Which other servers answer what is not answered here."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from llm_backend.settings.backend import BackendSettings
from llm_backend.settings.environment import variable
from llm_backend.settings.kinds import Names, Secret, also

__all__ = ["UpstreamsSettings"]


class UpstreamsSettings(BaseModel):
    """Which other servers answer what is not answered here."""

    openai_api_key: Secret | None = Field(
        None,
        validation_alias=also("openai_api_key", "OPENAI_API_KEY"),
        description="Key for the upstream; with it, what is not local is relayed.",
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=also("openai_base_url", "OPENAI_BASE_URL"),
        description="Base URL of the upstream; any server that speaks OpenAI's API.",
    )
    upstream_connect_timeout_s: float = Field(10, gt=0, description="Seconds to connect.")
    upstream_idle_timeout_s: float = Field(
        600, gt=0, description="Seconds between two pieces of an upstream's answer."
    )
    upstream_check_bytes: int = Field(
        256 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="Bytes of an upstream's JSON answer that are held until it is whole: what is "
        "no JSON then is a 502, and another one is asked. Of longer answers only the beginning is "
        "looked at.",
    )
    backends: tuple[BackendSettings, ...] = Field(
        (),
        description="Upstreams, any number; the settings of each are below. `openai_api_key` adds "
        "one more, named `openai`, that serves all models.",
    )
    routes: dict[str, Names] = Field(
        {},
        description="Further model names, each with who answers for it, in turn, where those "
        "before cannot: `NAME: MODEL, MODEL@BACKEND, ...`.",
    )
    operations: dict[str, str] = Field(
        {},
        description="Which backend answers what no model decides, by operationId or tag: "
        "`Images: NAME`.",
    )
    strict: bool = Field(
        False,
        description="Refuse fields that the document does not know in what is relayed; otherwise "
        "they are passed on, and named in the answer's `x-llm-backend-unknown-fields`.",
    )

    @field_validator("backends", mode="before")
    @classmethod
    def _with_keys(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return [_with_key(one) if isinstance(one, dict) else one for one in value]

    @property
    def has_upstream(self) -> bool:
        """Whether there is another server that what is not local can be asked of."""
        return bool(self.backends) or self.openai_api_key is not None


def _with_key(backend: dict[str, Any]) -> dict[str, Any]:
    """The entry with its key in place of where the key is."""
    given = {**backend}
    name, file = given.pop("api_key_env", None), given.pop("api_key_file", None)
    if sum(one is not None for one in (name, file, given.get("api_key"))) > 1:
        raise ValueError("a backend's key is given once: api_key, api_key_env or api_key_file")
    if name is not None:
        given["api_key"] = variable(str(name))
        if not given["api_key"]:
            raise ValueError(
                f"the variable {name}, which holds a backend's key, is not set or empty"
            )
    if file is not None:
        try:
            given["api_key"] = Path(str(file)).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file {file}, which holds a backend's key, is unread") from error
    return given
