"""Engine configuration: every limit and its default."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from llm_backend.engine.messages import Adapter, GrammarLimits, ModelKind, PrefixLimits

CACHE_TYPES = ("f32", "f16", "q8_0", "q4_0")


@dataclass(frozen=True, kw_only=True)
class EngineFit:
    """Part of a configuration that is fitted to a machine's memory; `plan` describes it."""

    slots: int
    context_tokens: int | None
    gpu_layers: int | None
    tensor_split: tuple[float, ...]
    host_experts: int
    plan: str


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Configuration of one engine: one model in one process.

    `context_tokens` None is what the model was trained for, at most `default_context_tokens`; it is
    what one sequence can hold. An answer whose limit exceeds it goes on for `context_shift_tokens`
    at most, without its oldest tokens. `threads` None is one thread for a tiny model, and else at
    most the number of cores this process may use: fewer while passes wait for cores that run other
    processes. `gpu_layers` None is all of them, the output part as one more; the experts of the
    first `host_experts` layers stay in host memory. `tensor_split` are the shares of the devices,
    `main_gpu` is the only one if `split_mode` is `none`. `plan` describes the fit to this machine's
    memory, and `smaller` replaces it once if it does not hold. `use_extra_buffers` lets the native
    code repack weights for this processor. `kv_unified` lets all sequences share one pool of
    `cells` (None: a whole context for each slot), which suits GPUs; separate cells are faster on
    CPUs. `cache_type` is the type of a cell's numbers, one of `CACHE_TYPES`; `flash_attention` None
    lets the native code decide (it rounds to half precision, and quantized cells need it). `mmap`
    maps the file instead of reading it (None: if that is faster and leaves enough memory), `mlock`
    keeps it from swapping.

    `hang_timeout_s` must exceed the longest forward pass; a worker that is silent for longer is
    killed and restarted. A worker that dies is restarted after `restart_delay_s`, doubled by each
    death in a row up to `restart_delay_limit_s`. After more than `restart_limit` deaths, or if the
    model cannot be loaded, the engine has failed for `restart_pause_s`, doubled up to
    `restart_pause_limit_s`, and is started once more. A worker that was ready and lived for
    `quick_death_s` ends the row.

    `speculation` drafts up to `draft_tokens` for a sequence that repeats something, where that is
    faster; it changes no answer. Drafts and logprobs of prompts share `logit_rows`, which are as
    many as `draft_tokens` at least. `draft_model_path` is a smaller model with the same vocabulary,
    in the same process, that drafts where nothing repeats and that is faster. `adapters` are LoRA
    adapters that apply to all sequences of the model: sequences with other adapters need an engine
    of their own, as cells computed with one are invalid for another. `projector_path` is the model
    that encodes pictures or sounds into embeddings; where the size of a picture decides, it takes
    `picture_tokens` at most (None: what the file says). A sound has at most `sound_limit_s`.
    `prefixes` configures prefix files, for prefixes that no slot holds any longer; None keeps none.
    States of such prefixes take at most `prefix_ram_bytes` of host memory; None is a quarter of
    what is available once the model is loaded, 0 keeps none.

    A command that has crashed the worker `crashes_limit` times is quarantined until
    `poison_requests_age_s` have passed since its last crash; `poison_requests_limit` commands are
    remembered. At most `queue_limit` requests wait, each for `queue_deadline_s` at most. Batch
    requests have limits of their own, so that they neither fill the queue of interactive requests
    nor time out before these have finished. `kind` None is detected from the file. `command`
    replaces the worker's command line; the number of its socket's file descriptor is appended.
    `socket_path` is the path of the Unix socket over which at most `connections_limit` other
    processes may use the same worker; None is no socket.
    """

    model_path: Path
    context_tokens: int | None = None
    default_context_tokens: int = 4096
    context_shift_tokens: int = 0
    slots: int = 8
    batch_tokens: int = 512
    logit_rows: int = 32
    speculation: bool = True
    draft_tokens: int = 16
    draft_model_path: Path | None = None
    adapters: tuple[Adapter, ...] = ()
    projector_path: Path | None = None
    picture_tokens: int | None = None
    sound_limit_s: float = 600
    threads: int | None = None
    gpu_layers: int | None = 0
    tensor_split: tuple[float, ...] = ()
    main_gpu: int = 0
    split_mode: str = "layer"
    host_experts: int = 0
    plan: str = ""
    smaller: EngineFit | None = None
    use_extra_buffers: bool = True
    kv_unified: bool = False
    cells: int | None = None
    cache_type: str = "f16"
    flash_attention: bool | None = None
    mmap: bool | None = None
    mlock: bool = False
    kind: ModelKind | None = None
    queue_limit: int = 256
    queue_deadline_s: float = 60
    batch_queue_limit: int = 256
    batch_queue_deadline_s: float = 3600
    choices_limit: int = 128
    stops_limit: int = 64
    inputs_limit: int = 2048
    labels_limit: int = 10_000
    grammars: GrammarLimits = field(default_factory=GrammarLimits)
    prefixes: PrefixLimits | None = None
    prefix_ram_bytes: int | None = None
    outbox_bytes: int = 64 << 20
    start_timeout_s: float = 120
    hang_timeout_s: float = 180
    stop_timeout_s: float = 5
    restart_limit: int = 5
    restart_delay_s: float = 0.25
    restart_delay_limit_s: float = 30
    restart_pause_s: float = 15
    restart_pause_limit_s: float = 300
    quick_death_s: float = 30
    poison_requests_limit: int = 1024
    crashes_limit: int = 2
    poison_requests_age_s: float = 3600
    log_level: str = "WARNING"
    socket_path: Path | None = None
    connections_limit: int = 64
    command: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in (
            "slots",
            "batch_tokens",
            "logit_rows",
            "draft_tokens",
            "choices_limit",
            "inputs_limit",
            "labels_limit",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.draft_model_path is not None and not self.speculation:
            raise ValueError("draft_model_path needs speculation")
        if self.cache_type not in CACHE_TYPES:
            raise ValueError(f"cache_type must be one of {CACHE_TYPES}, not {self.cache_type!r}")
        if self.cells is not None and not self.kv_unified:
            raise ValueError("cells needs kv_unified: separate slots hold a whole context each")

    def fit(self, fit: EngineFit, *, smaller: EngineFit | None = None) -> "EngineConfig":
        """This configuration with another fit to the machine's memory."""
        return replace(
            self,
            slots=fit.slots,
            context_tokens=fit.context_tokens,
            gpu_layers=fit.gpu_layers,
            tensor_split=fit.tensor_split,
            host_experts=fit.host_experts,
            plan=fit.plan,
            smaller=smaller,
        )
