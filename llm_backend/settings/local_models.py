"""Which models are answered from here, and how they are computed."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_settings import NoDecode

from llm_backend.settings.kinds import MaybePath, Names, Word, also, words
from llm_backend.settings.model import Bytes, CacheType, ModelSettings

__all__ = ["BUILTIN", "NO_MODEL", "LocalModelsSettings"]

BUILTIN = "builtin"
NO_MODEL = "none"


def _models(given: object) -> object:
    models = words(given)
    return () if models in ((NO_MODEL,), [NO_MODEL]) else models


Models = Annotated[
    tuple[
        Annotated[
            Annotated[Word, Tag("")] | Annotated[ModelSettings, Tag("entry")],
            Discriminator(lambda given: "" if isinstance(given, str) else "entry"),
        ],
        ...,
    ],
    NoDecode,
    BeforeValidator(_models),
]
"""Models by the paths of their files, or by all that is set for them; `none` alone is no model."""


class LocalModelsSettings(BaseModel):
    """Which models are answered from here, and how they are computed."""

    models: Models = Field(
        (BUILTIN,),
        validation_alias=also("models", "LLAMA_MODEL_FILE"),
        description="GGUF files to serve; `builtin` is the built-in model, `none` serves none. In "
        "the file an entry may also say all that stands under `One model`.",
    )
    models_dir: MaybePath = Field(
        None,
        description="Folder of model files that `llm-backend models` keeps; `models` in the data "
        "folder where unset.",
    )
    aliases: Names = Field(
        (), description="Further names, `NAME` for the first model or `NAME=MODEL`."
    )
    tiktoken_dir: MaybePath = Field(
        None,
        validation_alias=also("tiktoken_dir", "TIKTOKEN_CACHE_DIR"),
        description="Folder in which `tiktoken` keeps the files of OpenAI's encodings. By them "
        "token ids are read in requests that name a local model by a name of OpenAI's; nothing is "
        "fetched.",
    )
    tool_formats: Names = Field(
        (),
        description="How models write tool calls, `FORMAT` for all of them or `MODEL=FORMAT`; told "
        "from the chat template where unset.",
    )
    load_models: Literal["start", "demand"] = Field(
        "start",
        description="When models are loaded: as many as fit when the server starts, or each by its "
        "first request.",
    )
    idle_unload_s: float | None = Field(
        None,
        gt=0,
        description="Seconds without a request after which a model is unloaded, until it is asked "
        "again; never where unset.",
    )
    memory_budget: Bytes | None = Field(
        None,
        description="Memory that local models may take together, `24 GB` say; all that the machine "
        "has where unset. A model that needs room has those unloaded that were unused longest.",
    )
    load_deadline_s: float = Field(
        120, gt=0, description="Seconds a request waits for its model to be loaded at most."
    )
    context_tokens: int | None = Field(
        None,
        ge=16,
        validation_alias=also("context_tokens", "LLAMA_CONTEXT_SIZE"),
        description="Tokens one sequence can hold; the model's own, at most 4096, where unset.",
    )
    cache_type: CacheType = Field(
        "f16", description="Type of the numbers in KV cells; `q8_0` takes half of the memory."
    )
    flash_attention: bool | None = Field(
        None, description="Fused attention; whatever suits the model where unset."
    )
    slots: int = Field(8, ge=1, le=256, description="Sequences a model runs at once.")
    batch_tokens: int = Field(512, ge=8, description="Tokens one forward pass computes at most.")
    prefix_cache_dir: MaybePath = Field(
        None,
        description="Folder in which long prompts are kept, with what was computed of them, when "
        "no slot has them any longer, and over restarts. Whoever reads it knows what was asked and "
        "answered. Nothing is kept where unset.",
    )
    prefix_cache_bytes: Bytes = Field(
        4 << 30,
        description="Bytes that are kept there for each model at most; what was used longest ago "
        "goes first.",
    )
    prefix_cache_min_tokens: int = Field(
        256,
        ge=64,
        description="Tokens of a prompt that are worth keeping, beyond those that are kept, and "
        "worth reading.",
    )
    speculation: bool = Field(
        True,
        description="Compute ahead where a text repeats something; changes no answer.",
    )
    draft_tokens: int = Field(
        16, ge=1, le=256, description="Tokens computed ahead of one sequence at most."
    )
    draft_models: Names = Field(
        (),
        description="Smaller GGUF files that write ahead where that is faster, `FILE` for the "
        "first model or `MODEL=FILE`. A draft model has its model's vocabulary, and KV cells of "
        "its own for as many slots and tokens; it changes no answer.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads per model; where unset, one for a model of at most 16 MB and all "
        "cores for others, fewer while other processes want them too.",
    )
    gpu_layers: int = Field(0, ge=-1, description="Layers put on the GPU; -1 for all.")
    mmap: bool | None = Field(
        None,
        description="Map model files into memory, or read them; where unset they are read, into "
        "huge pages, if half of the free memory holds them, `mlock` is not set, no adapter is "
        "applied and the engine was not built for a GPU.",
    )
    mlock: bool = Field(
        False,
        description="Keep models from being swapped out, with memory for all cells from the start.",
    )
    hang_timeout_s: float = Field(
        180,
        gt=0,
        description="Seconds of silence after which a busy engine is restarted; "
        "longer than its longest forward pass.",
    )
    start_timeout_s: float = Field(
        120, gt=0, description="Seconds a model may take to be loaded and to compute a first pass."
    )
    restart_limit: int = Field(
        5,
        ge=0,
        description="Deaths of a model's engine in a row after which it pauses before it is "
        "started again; `/readyz` and a 503 tell it meanwhile.",
    )
    restart_delay_s: float = Field(
        0.25, gt=0, description="Seconds before the first restart; doubled by each further death."
    )
    restart_delay_limit_s: float = Field(
        30, gt=0, description="Seconds between two restarts at most, before the pauses."
    )
    restart_pause_s: float = Field(
        15,
        gt=0,
        description="Seconds of the first pause, also after a model could not be loaded; one start "
        "follows each, and each further pause is twice as long.",
    )
    restart_pause_limit_s: float = Field(300, gt=0, description="Seconds of a pause at most.")
    quick_death_s: float = Field(
        30,
        ge=0,
        description="Seconds an engine must have been ready for its death to be the first.",
    )
    queue_limit: int = Field(256, ge=1, description="Requests that wait for a model at most.")
    queue_deadline_s: float = Field(60, gt=0, description="Seconds a request waits at most.")
    batch_queue_limit: int = Field(
        256, ge=1, description="Requests of `service_tier: flex` that wait besides, at most."
    )
    batch_queue_deadline_s: float = Field(
        3600, gt=0, description="Seconds a request of `service_tier: flex` waits at most."
    )
    image_hosts: Names = Field(
        (),
        description="Hosts from which pictures are fetched for local models, `HOST` or "
        "`HOST:PORT`, at public addresses only; URLs of others are refused.",
    )
    image_timeout_s: float = Field(
        10, gt=0, description="Seconds that fetching a picture may take."
    )
    file_hosts: Names = Field(
        (),
        description="Hosts from which files in the input of responses (`file_url`) are fetched for "
        "local models, `HOST` or `HOST:PORT`, at public addresses only; URLs of others are "
        "refused.",
    )
    file_timeout_s: float = Field(
        30, gt=0, description="Seconds that fetching a file for a response may take."
    )
    moderation_model: str | None = Field(
        None,
        description="Name or alias of the served chat model that answers `/v1/moderations` for "
        "OpenAI's names of moderation models; the upstream does where unset.",
    )
