"""Configuration of an engine: of its worker process, and of the supervision of that process."""

from dataclasses import asdict, dataclass
from pathlib import Path

from msgspec.structs import replace

from llm_backend.engine.messages import LoadModel, WorkerConfig

CACHE_TYPES = ("f32", "f16", "q8_0", "q4_0")


@dataclass(frozen=True, kw_only=True)
class EngineFit:
    """The part of a configuration that depends on the machine's memory; `plan` describes it."""

    slots: int
    context_tokens: int | None
    gpu_layers: int | None
    tensor_split: tuple[float, ...]
    host_experts: int
    plan: str


class EngineConfig(WorkerConfig, frozen=True, kw_only=True):
    """Configuration of one engine: of its worker process, and of the supervision of that process.

    A worker that dies is restarted after a delay. After more than `restart_limit` deaths in a row,
    or if the first worker cannot load the model, the engine is `failed` for a pause and is then
    started again. Each further death or failure in a row doubles the delay or the pause. Once a
    worker has been ready for `restart_reset_s`, the count starts anew.
    """

    smaller_fit: EngineFit | None = None  # replaces this fit if the start fails for lack of memory
    speculation: bool = True  # drafts tokens where that is faster; the answers stay the same
    start_timeout_s: float = 120
    hang_timeout_s: float = 180  # a worker without progress is killed; longer than any pass
    stop_timeout_s: float = 5

    restart_limit: int = 5
    restart_delay_s: float = 0.25
    restart_delay_limit_s: float = 30
    restart_pause_s: float = 15
    restart_pause_limit_s: float = 300
    restart_reset_s: float = 30

    quarantine_weight: int = 2  # sum of a command's crash weights at which it is quarantined
    poison_requests_limit: int = 1024  # commands whose crashes are remembered
    poison_requests_age_s: float = 3600  # time after its last crash when a command may run again

    socket_path: Path | None = None  # Unix socket for other processes; None: no socket
    # command line of the worker instead of the usual one; gets its socket's file descriptor
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

    def with_fit(self, fit: EngineFit, *, smaller_fit: EngineFit | None = None) -> "EngineConfig":
        """Returns this configuration with another fit to the machine's memory."""
        return replace(self, **asdict(fit), smaller_fit=smaller_fit)

    @property
    def drafted_tokens(self) -> int:
        """Maximum number of tokens drafted for one sequence in one pass; 0 without speculation."""
        return self.draft_tokens if self.speculation else 0

    @property
    def output_rows(self) -> int:
        """Rows of logits of one pass besides one for each slot."""
        return max(self.logit_rows, self.drafted_tokens)

    def start_command(self, *, deaths: int, listening_fd: int | None) -> LoadModel:
        """Returns the first command to a worker."""
        shared = {name: getattr(self, name) for name in WorkerConfig.__struct_fields__}
        shared |= {"draft_tokens": self.drafted_tokens, "logit_rows": self.output_rows}
        return LoadModel(**shared, deaths=deaths, listening_fd=listening_fd)
