"""What can be set for one local model: an entry under `models:` of the config file.

What is left out is what the flat settings say, or else the model's file.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from llm_backend.settings.kinds import not_empty

__all__ = [
    "AdapterSettings",
    "Bytes",
    "CacheType",
    "ModelSettings",
    "RequestDefaults",
    "TurnsOfChat",
]

CacheType = Literal["f32", "f16", "q8_0", "q4_0"]

_SIZE = re.compile(r"([0-9.]+) *([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def _bytes(given: object) -> object:
    if not isinstance(given, str):
        return given
    found = _SIZE.fullmatch(given.strip())
    if found is None or found[1].count(".") > 1 or found[1] == ".":
        raise ValueError("it is a size like `6 GB`, `512 MiB` or a number of bytes")
    unit = 1024 if found[3] else 1000
    return int(float(found[1]) * unit ** _POWERS[found[2].upper()])


Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
"""A number of bytes, which people may write as `6 GB` or `512 MiB`."""


def _stops(given: object) -> object:
    return (given,) if isinstance(given, str) else given


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RequestDefaults(_Section):
    """Fields of requests, used where a request does not have them."""

    temperature: float | None = Field(None, ge=0, le=2, description="As in requests.")
    top_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    top_k: int | None = Field(None, ge=0, description="As in requests; 0 takes all.")
    min_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    typical_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    xtc_probability: float | None = Field(None, ge=0, le=1, description="As in requests.")
    xtc_threshold: float | None = Field(None, ge=0, le=1, description="As in requests.")
    mirostat: Literal[0, 1, 2] | None = Field(None, description="As in requests.")
    mirostat_tau: float | None = Field(None, ge=0, le=100, description="As in requests.")
    mirostat_eta: float | None = Field(None, ge=0, le=10, description="As in requests.")
    repeat_penalty: float | None = Field(None, ge=0.01, le=10, description="As in requests.")
    repeat_last_n: int | None = Field(
        None, ge=-1, le=1_000_000, description="As in requests; -1 looks at all tokens."
    )
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="As in requests.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="As in requests.")
    dry_multiplier: float | None = Field(None, ge=0, le=1000, description="As in requests.")
    dry_base: float | None = Field(None, ge=1, le=1000, description="As in requests.")
    dry_allowed_length: int | None = Field(None, ge=0, le=1_000_000, description="As in requests.")
    dry_penalty_last_n: int | None = Field(
        None, ge=-1, le=1_000_000, description="As in requests; -1 looks at all tokens."
    )
    seed: int | None = Field(None, description="As in requests.")
    max_tokens: int | None = Field(
        None, ge=1, description="Tokens of an answer at most, where a request sets no limit."
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_stops)] = (
        Field((), max_length=16, description="Texts that end an answer; a request's own win.")
    )

    def fields(self) -> Mapping[str, Any]:
        """Those that are set, by the names that requests use."""
        given = self.model_dump(exclude_none=True)
        return {name: list(value) if name == "stop" else value for name, value in given.items()
                if value != ()}  # fmt: skip


class AdapterSettings(_Section):
    """A LoRA adapter."""

    path: Path = Field(description="GGUF file of the adapter.")
    scale: float = Field(1.0, description="How strongly it is applied.")

    _check_empty = field_validator("*", mode="before")(not_empty)


class TurnsOfChat(_Section):
    """A chat template as the frame of each role's turn."""

    user: str = Field(description="With `{{ text }}` where it is said.")
    assistant: str = Field(description="With `{{ text }}` where it is said.")
    opening: str = Field(description="What the assistant's answer begins after.")
    system: str | None = Field(None, description="Told with the user's turn where there is none.")
    stop: tuple[str, ...] = Field((), description="Texts that end an answer.")


class ModelSettings(_Section):
    """One local model."""

    path: str = Field(
        min_length=1,
        description="GGUF file (also one in the models folder), `builtin`, or `OWNER/NAME[:QUANT]` "
        "for a model that `llm-backend models pull` brought.",
    )
    id: str | None = Field(
        None, min_length=1, description="Its name; the file's without its ending where unset."
    )
    aliases: tuple[str, ...] = Field((), description="Further names.")
    mmproj: str | None = Field(
        None,
        min_length=1,
        description="GGUF file of the model's projector, by which it sees pictures or hears sound; "
        "also one in the models folder, or `OWNER/NAME[:QUANT]` for one that was pulled.",
    )
    image_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens of a picture at most, for projectors that make as many as it is large.",
    )
    role: Literal["chat", "embeddings", "rerank"] | None = Field(
        None, description="What it is for; told from the file where unset."
    )
    load: Literal["start", "demand"] | None = Field(None, description="As `load_models`.")
    idle_unload_s: float | None = Field(None, gt=0, description="As the setting of this name.")
    memory: Bytes | None = Field(
        None, description="Bytes that it takes, for the memory budget; estimated where unset."
    )
    chat_template: str | TurnsOfChat | None = Field(
        None,
        description="A format's name, a Jinja file, a Jinja text, or the frames of turns (`user`, "
        "`assistant`, `opening`, `system`, `stop`); the file's own template where unset.",
    )
    tool_format: str | None = Field(None, description="As `tool_formats`.")
    personalities: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(
        {}, description="System prompts by name; a request chooses one with `MODEL:NAME`."
    )
    personality: str | None = Field(
        None, description="The one of them that the model has where a request names none."
    )
    vector_stores: tuple[str, ...] = Field(
        (),
        max_length=16,  # each is searched for in every generated text
        description="Ids of vector stores that are searched before the model answers.",
    )
    adapters: Mapping[str, Path | AdapterSettings] = Field(
        {},
        description="LoRA adapters by name, each a GGUF file or `path` and `scale`; `MODEL:NAME` "
        "is the model with it.",
    )
    defaults: RequestDefaults = Field(
        default_factory=lambda: RequestDefaults.model_validate({}),
        description="Fields of requests, used where a request has none.",
    )
    grammar_file: Path | None = Field(
        None,
        description="Lark or GBNF that answers follow, where a request has no `grammar`, "
        "`response_format` or `tools`.",
    )
    context_tokens: int | None = Field(None, ge=16, description="As the setting of this name.")
    slots: int | None = Field(None, ge=1, le=256, description="As the setting of this name.")
    batch_tokens: int | None = Field(None, ge=8, description="As the setting of this name.")
    threads: int | None = Field(None, ge=1, description="As the setting of this name.")
    gpu_layers: int | None = Field(None, ge=-1, description="As the setting of this name.")
    cache_type: CacheType | None = Field(None, description="As the setting of this name.")
    flash_attention: bool | None = Field(None, description="As the setting of this name.")
    mmap: bool | None = Field(None, description="As the setting of this name.")
    mlock: bool | None = Field(None, description="As the setting of this name.")
    speculation: bool | None = Field(None, description="As the setting of this name.")
    draft_tokens: int | None = Field(None, ge=1, le=256, description="As the setting of this name.")
    draft_model: Path | None = Field(None, description="As `draft_models`.")

    _check_empty = field_validator("*", mode="before")(not_empty)
