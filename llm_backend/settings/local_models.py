"""Settings of the local models and of their engines."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_settings import NoDecode

from llm_backend.extras import is_installed
from llm_backend.settings.kinds import (
    AbsolutePath,
    Names,
    NonEmptyText,
    environment_names,
    split_commas,
)
from llm_backend.settings.model_entry import (
    Bytes,
    BytesOrZero,
    CacheType,
    ModelSettings,
    Shares,
    SplitMode,
)

BUILTIN = "builtin"
NO_MODEL = "none"


def _models(value: object) -> object:
    models = split_commas(value)
    return () if models in ((NO_MODEL,), [NO_MODEL]) else models


def _default_models() -> tuple[str, ...]:
    return (BUILTIN,) if is_installed("local") else ()


Models = Annotated[
    tuple[
        Annotated[
            Annotated[NonEmptyText, Tag("")] | Annotated[ModelSettings, Tag("entry")],
            Discriminator(lambda value: "" if isinstance(value, str) else "entry"),
        ],
        ...,
    ],
    NoDecode,
    BeforeValidator(_models),
]
"""Models as paths of their files or as entries with settings; `none` alone means no model."""


class LocalModelsSettings(BaseModel):
    """Models that this server computes, their memory, engines and queues."""

    models: Models = Field(
        default_factory=_default_models,
        validation_alias=environment_names("models", "LLAMA_MODEL_FILE"),
        description="GGUF files to serve; `builtin` is the built-in model, `none` serves no "
        "model. If unset, `builtin` where the local engine is installed, else `none`. In the "
        "config file an entry may also be a mapping, see `One model`.",
    )
    models_dir: AbsolutePath | None = Field(
        None,
        description="Folder of the model files of `llm-backend models`; `models` in the data "
        "folder if unset.",
    )
    serve_models_folder: bool = Field(
        False,
        description="Also serve every model file in that folder, by its file's name, loaded by "
        "its first request. The folder is watched: a model that is downloaded is served "
        "immediately, and one that is removed is not served any more. A file whose name another "
        "model has is left out, with a warning.",
    )
    aliases: Names = Field(
        (), description="Further names, `NAME` for the first model or `NAME=MODEL`."
    )
    tiktoken_dir: AbsolutePath | None = Field(
        None,
        validation_alias=environment_names("tiktoken_dir", "TIKTOKEN_CACHE_DIR"),
        description="Folder in which `tiktoken` caches the files of OpenAI's encodings; nothing is "
        "fetched. They decode token ids in requests whose local model has an alias that is the "
        "name of an OpenAI model.",
    )
    tool_formats: Names = Field(
        (),
        description="Format of the models' tool calls, `FORMAT` for all or `MODEL=FORMAT`; "
        "detected from the chat template if unset.",
    )
    load_models: Literal["start", "demand"] = Field(
        "start",
        description="Time of loading: `start` loads as many models as fit when the server starts, "
        "`demand` loads each on its first request.",
    )
    idle_unload_s: float | None = Field(
        None,
        gt=0,
        description="Seconds without a request after which a model is unloaded, until the next "
        "request for it; never if unset.",
    )
    memory_budget: Bytes | None = Field(
        None,
        description="Memory for all local models together, for example `24 GB`; the memory of the "
        "machine and of its GPUs if unset. A model that does not fit evicts the least recently "
        "used ones.",
    )
    load_deadline_s: float = Field(
        120,
        gt=0,
        description="Maximum time in seconds that a request waits for its model to be loaded.",
    )
    context_tokens: int | None = Field(
        None,
        ge=16,
        validation_alias=environment_names("context_tokens", "LLAMA_CONTEXT_SIZE"),
        description="Tokens of one sequence. If unset, the model's own context, as far as its KV "
        "cells fit; at most 4096 for embedding models.",
    )
    cells_memory_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Maximum share of the free host memory, after weights and buffers, that the "
        "planned KV cells of all models take. Contexts of up to 4096 tokens are exempt.",
    )
    cache_type: CacheType = Field(
        "f16", description="Data type of KV cells; `q8_0` halves the memory of `f16`."
    )
    kv_unified: bool = Field(
        False,
        description="One pool of KV cells for all slots of a model instead of one for each; meant "
        "for GPUs, measure it.",
    )
    flash_attention: bool | None = Field(
        None, description="Fused attention; chosen by the model if unset."
    )
    prefill_kernels: bool = Field(
        True,
        description="Compiled kernels of this server's own for passes of several tokens, on "
        "x86 processors with AVX2, AVX-512 or AMX; not with `flash_attention` off.",
    )
    slots: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Sequences that a model computes concurrently. If unset 8, reduced to as few "
        "as 2 so that the model's whole context fits into memory.",
    )
    context_shift_tokens: int = Field(
        0,
        ge=0,
        description="Number of tokens beyond the context that an answer may have if its "
        "`max_tokens` asks for them (context shift): each time the context is full, its older half "
        "is dropped and the rest is computed anew. 0 ends such an answer at the context, with "
        "`finish_reason: length`.",
    )
    batch_tokens: int = Field(
        512, ge=8, description="Maximum number of tokens in one forward pass."
    )
    prefix_ram_bytes: BytesOrZero | None = Field(
        None,
        description="Host memory of one model for the KV cells of chats that no slot holds any "
        "more; 0 is none. If unset, a quarter of the memory that is available once the model is "
        "loaded. The least recently used are evicted, also when the machine runs short of memory.",
    )
    generated_tokens_bytes: BytesOrZero = Field(
        32 << 20,
        description="Memory of one model for the tokens of recent chats as it generated them; 0 is "
        "none. A prompt that begins with such a chat reuses these tokens and their cached KV "
        "cells; tokenizing the text again could give other tokens.",
    )
    prefix_cache_dir: AbsolutePath | None = Field(
        None,
        description="Folder of prefix files: the KV cells of long prompts that no slot holds any "
        "more, also across restarts. They reveal prompts and answers to every reader of the "
        "folder. No prefix files if unset.",
    )
    prefix_cache_bytes: Bytes = Field(
        4 << 30,
        description="Maximum size of the prefix files of one model; the least recently used are "
        "deleted.",
    )
    prefix_cache_min_tokens: int = Field(
        256,
        ge=64,
        description="Minimum gain in tokens: a prompt is saved if it is at least this much "
        "longer than each saved prefix of it, and a saved prefix is read if it is at least this "
        "much longer than the cached one.",
    )
    speculation: bool = Field(
        True,
        description="Draft tokens by prompt lookup where a text repeats itself, and by the draft "
        "head of a model that has one (MTP); changes no answer.",
    )
    draft_tokens: int = Field(
        16,
        ge=1,
        le=256,
        description="Maximum number of tokens drafted for one sequence in one pass.",
    )
    draft_models: Names = Field(
        (),
        description="Smaller GGUF files that draft tokens where that is faster (models, or EAGLE-3 "
        "drafts), `FILE` for the first model or `MODEL=FILE`. A draft model needs its model's "
        "vocabulary, and has KV cells of its own for as many slots and tokens; it changes no "
        "answer.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="Threads per model; if unset, one for a model of at most 16 MB and all cores "
        "for others, fewer while other processes are busy.",
    )
    gpu_layers: int | None = Field(
        None,
        ge=-1,
        description="Number of layers that GPUs compute, the output layer included; 0 is none, -1 "
        "all. If unset, as many as fit with their KV cells; experts of a mixture (MoE) come last.",
    )
    tensor_split: Shares = Field(
        (), description="Shares of the layers by GPU, as `3,1`; by free memory if unset."
    )
    main_gpu: int = Field(
        0, ge=0, description="Number of the GPU that computes everything if `split_mode` is `none`."
    )
    split_mode: SplitMode = Field(
        "layer",
        description="Distribution over several GPUs: `layer` gives whole layers to each GPU, `row` "
        "rows of matrices, `none` uses one GPU.",
    )
    mmap: bool | None = Field(
        None,
        description="Map model files into memory instead of reading them. If unset, they are read "
        "into huge pages if half of the free memory is enough, `mlock` is off, no adapter is "
        "applied and the engine is not built for a GPU.",
    )
    mlock: bool = Field(
        False,
        description="Lock models in memory against swapping; memory for all cells is allocated at "
        "the start.",
    )
    hang_timeout_s: float = Field(
        180,
        gt=0,
        description="Seconds without progress after which a busy engine is restarted; longer than "
        "its longest forward pass.",
    )
    start_timeout_s: float = Field(
        120, gt=0, description="Timeout in seconds for loading a model and computing a first pass."
    )
    restart_limit: int = Field(
        5,
        ge=0,
        description="Crashes of a model's engine in a row after which it pauses before the next "
        "restart; meanwhile the model's requests, and `/readyz`, are answered with 503.",
    )
    restart_delay_s: float = Field(
        0.25, gt=0, description="Seconds before the first restart; doubled by each further crash."
    )
    restart_delay_limit_s: float = Field(
        30, gt=0, description="Maximum time in seconds before a restart, until the pauses begin."
    )
    restart_pause_s: float = Field(
        15,
        gt=0,
        description="Seconds of the first pause, after too many crashes or a failed load. One "
        "start is tried after each pause, and each further pause is twice as long.",
    )
    restart_pause_limit_s: float = Field(
        300, gt=0, description="Maximum length of a pause in seconds."
    )
    restart_reset_s: float = Field(
        30,
        ge=0,
        description="If an engine was ready for this many seconds before it crashed, the count "
        "of crashes starts anew.",
    )
    queue_limit: int = Field(
        256, ge=1, description="Maximum number of requests that wait for one model."
    )
    queue_deadline_s: float = Field(
        60, gt=0, description="Maximum time in seconds that a request waits in the queue."
    )
    batch_queue_limit: int = Field(
        256,
        ge=1,
        description="Maximum number of requests with `service_tier: flex` that wait, in addition "
        "to `queue_limit`.",
    )
    batch_queue_deadline_s: float = Field(
        3600,
        gt=0,
        description="Maximum time in seconds that a request with `service_tier: flex` waits.",
    )
    image_hosts: Names = Field(
        (),
        description="Hosts from which images are fetched for local models, `HOST` or "
        "`HOST:PORT`, at public addresses only; URLs of other hosts are refused.",
    )
    image_timeout_s: float = Field(
        10, gt=0, description="Timeout in seconds for fetching an image."
    )
    file_hosts: Names = Field(
        (),
        description="Hosts from which files in the input of responses (`file_url`) are fetched "
        "for local models, `HOST` or `HOST:PORT`, at public addresses only; URLs of other hosts "
        "are refused.",
    )
    file_timeout_s: float = Field(
        30, gt=0, description="Timeout in seconds for fetching a file for a response."
    )
    moderation_model: str | None = Field(
        None,
        description="Name or alias of the served chat model that answers `/v1/moderations` for "
        "OpenAI's names of moderation models; the upstream answers if unset.",
    )
