"""Settings of one local model: an entry under `models:` of the config file.

A missing key has the value of the top-level setting, or else of the model's file.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

from llm_backend.settings.kinds import require_text, split_commas

CacheType = Literal["f32", "f16", "q8_0", "q4_0"]

SplitMode = Literal["layer", "row", "none"]

Shares = Annotated[
    tuple[Annotated[float, Field(ge=0)], ...], NoDecode, BeforeValidator(split_commas)
]
"""Proportions; comma-separated in the environment."""

_SIZE = re.compile(r"([0-9.]+) *([KMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_bytes(value: object) -> object:
    """Parses a size with a unit (`4 GiB`) to bytes; returns other values as they are."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        raise ValueError("it must be a size like `6 GB`, `512 MiB` or a number of bytes")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** _POWERS[match[2].upper()])


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=1)]
BytesOrZero = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
"""A number of bytes, or a text like `6 GB` or `512 MiB`."""


def _stops(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class _FileEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class RequestDefaults(_FileEntry):
    """Fields of requests, used if a request does not have them."""

    temperature: float | None = Field(None, ge=0, le=2, description="As in requests.")
    top_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    top_k: int | None = Field(None, ge=0, description="As in requests; 0 means all.")
    min_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    typical_p: float | None = Field(None, ge=0, le=1, description="As in requests.")
    xtc_probability: float | None = Field(None, ge=0, le=1, description="As in requests.")
    xtc_threshold: float | None = Field(None, ge=0, le=1, description="As in requests.")
    mirostat: Literal[0, 1, 2] | None = Field(None, description="As in requests.")
    mirostat_tau: float | None = Field(None, ge=0, le=100, description="As in requests.")
    mirostat_eta: float | None = Field(None, ge=0, le=10, description="As in requests.")
    repeat_penalty: float | None = Field(None, ge=0.01, le=10, description="As in requests.")
    repeat_last_n: int | None = Field(
        None, ge=-1, le=1_000_000, description="As in requests; -1 means all tokens."
    )
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="As in requests.")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="As in requests.")
    dry_multiplier: float | None = Field(None, ge=0, le=1000, description="As in requests.")
    dry_base: float | None = Field(None, ge=1, le=1000, description="As in requests.")
    dry_allowed_length: int | None = Field(None, ge=0, le=1_000_000, description="As in requests.")
    dry_penalty_last_n: int | None = Field(
        None, ge=-1, le=1_000_000, description="As in requests; -1 means all tokens."
    )
    seed: int | None = Field(None, description="As in requests.")
    max_tokens: int | None = Field(
        None, ge=1, description="Maximum number of tokens of an answer, if a request sets no limit."
    )
    stop: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_stops)] = (
        Field(
            (),
            max_length=16,
            description="Texts that end an answer; a request's own `stop` replaces them.",
        )
    )

    def fields(self) -> Mapping[str, Any]:
        """The fields that are set, by their names in requests."""
        values = self.model_dump(exclude_none=True)
        return {name: list(value) if name == "stop" else value for name, value in values.items()
                if value != ()}  # fmt: skip


class AdapterSettings(_FileEntry):
    """A LoRA adapter."""

    path: Path = Field(description="GGUF file of the adapter.")
    scale: float = Field(1.0, description="Factor of the adapter's weights.")

    _check_empty = field_validator("*", mode="before")(require_text)


class ChatTurnFrames(_FileEntry):
    """A chat template as the text around each role's turn."""

    user: str = Field(description="Frame of a user's turn, with `{{ text }}` for its text.")
    assistant: str = Field(
        description="Frame of an assistant's turn, with `{{ text }}` for its text."
    )
    opening: str = Field(description="Text before the assistant's answer.")
    system: str | None = Field(
        None,
        description="Frame of the system message; if unset, it is a part of the user's first turn.",
    )
    stop: tuple[str, ...] = Field((), description="Texts that end an answer.")


class ModelSettings(_FileEntry):
    """One local model."""

    path: str = Field(
        min_length=1,
        description="GGUF file (also one in the models folder), `builtin`, or "
        "`OWNER/NAME[:QUANT]` for a model that `llm-backend models pull` downloaded.",
    )
    id: str | None = Field(
        None,
        min_length=1,
        description="Name of the model; the file's name without the suffix if unset.",
    )
    aliases: tuple[str, ...] = Field((), description="Further names.")
    mmproj: str | None = Field(
        None,
        min_length=1,
        description="GGUF file of the model's projector, which encodes images or audio; also "
        "one in the models folder, or `OWNER/NAME[:QUANT]` for a downloaded one.",
    )
    image_tokens: int | None = Field(
        None,
        ge=16,
        description="Maximum number of tokens of an image, for projectors whose number of tokens "
        "depends on the size.",
    )
    role: Literal["chat", "embeddings", "rerank"] | None = Field(
        None,
        description="Purpose of the model: `chat`, `embeddings` or `rerank`; detected from the "
        "file if unset.",
    )
    load: Literal["start", "demand"] | None = Field(None, description="As `load_models`.")
    idle_unload_s: float | None = Field(None, gt=0, description="As the setting of this name.")
    memory: Bytes | None = Field(
        None, description="Bytes that count for the memory budget; estimated if unset."
    )
    chat_template: str | ChatTurnFrames | None = Field(
        None,
        description="A format's name, a Jinja file, a Jinja text, or the frames of turns (`user`, "
        "`assistant`, `opening`, `system`, `stop`); the file's own template if unset.",
    )
    tool_format: str | None = Field(None, description="As `tool_formats`.")
    personalities: Mapping[str, Annotated[str, Field(min_length=1)]] = Field(
        {}, description="System prompts by name; a request chooses one with `MODEL:NAME`."
    )
    personality: str | None = Field(None, description="The personality of requests that name none.")
    vector_stores: tuple[str, ...] = Field(
        (),
        max_length=16,  # each is searched for in every generated text
        description="Ids of vector stores that are searched before the model answers.",
    )
    adapters: Mapping[str, Path | AdapterSettings] = Field(
        {},
        description="LoRA adapters by name, each a GGUF file or `path` and `scale`; a request "
        "chooses one with `MODEL:NAME`.",
    )
    defaults: RequestDefaults = Field(
        default_factory=lambda: RequestDefaults.model_validate({}),
        description="Fields of requests, used if a request has none.",
    )
    grammar_file: Path | None = Field(
        None,
        description="Lark or GBNF grammar of answers, if a request has no `grammar`, "
        "`response_format` or `tools`.",
    )
    context_tokens: int | None = Field(None, ge=16, description="As the setting of this name.")
    slots: int | None = Field(None, ge=1, le=256, description="As the setting of this name.")
    batch_tokens: int | None = Field(None, ge=8, description="As the setting of this name.")
    threads: int | None = Field(None, ge=1, description="As the setting of this name.")
    gpu_layers: int | None = Field(None, ge=-1, description="As the setting of this name.")
    tensor_split: Shares | None = Field(None, description="As the setting of this name.")
    main_gpu: int | None = Field(None, ge=0, description="As the setting of this name.")
    split_mode: SplitMode | None = Field(None, description="As the setting of this name.")
    cache_type: CacheType | None = Field(None, description="As the setting of this name.")
    kv_unified: bool | None = Field(None, description="As the setting of this name.")
    flash_attention: bool | None = Field(None, description="As the setting of this name.")
    prefill_kernels: bool | None = Field(None, description="As the setting of this name.")
    mmap: bool | None = Field(None, description="As the setting of this name.")
    mlock: bool | None = Field(None, description="As the setting of this name.")
    speculation: bool | None = Field(None, description="As the setting of this name.")
    draft_tokens: int | None = Field(None, ge=1, le=256, description="As the setting of this name.")
    draft_model: Path | None = Field(None, description="As `draft_models`.")

    _check_empty = field_validator("*", mode="before")(require_text)
