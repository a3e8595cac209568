"""Commands to the worker process."""

from pathlib import Path

import msgspec

from llm_backend.engine.messages.values import (
    Adapter,
    GrammarLimits,
    Media,
    ModelKind,
    PrefixLimits,
    Priority,
    Sampling,
)


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of a worker process: one model, and every limit of its engine.

    `context_tokens` None is what the model was trained for, at most `default_context_tokens`; it is
    what one sequence can hold. An answer whose limit exceeds it goes on for `context_shift_tokens`
    at most, without its oldest tokens. `threads` None is one thread for a tiny model, and else at
    most the number of cores this process may use: fewer while passes wait for cores that run other
    processes. `gpu_layers` None is all of them, the output part as one more; the experts of the
    first `host_experts` layers stay in host memory. `tensor_split` are the shares of the devices,
    `main_gpu` is the only one if `split_mode` is `none`. `plan` describes the fit to this machine's
    memory. `use_extra_buffers` lets the native code repack weights for this processor. `kv_unified`
    lets all sequences share one pool of `cells` (None: a whole context for each slot), which suits
    GPUs; separate cells are faster on CPUs. `cache_type` is the type of a cell's numbers, one of
    `CACHE_TYPES`; `flash_attention` None lets the native code decide (it rounds to half precision,
    and quantized cells need it). `mmap` maps the file instead of reading it (None: if that is
    faster and leaves enough memory), `mlock` keeps it from swapping.

    One sequence has up to `draft_tokens` drafts in a pass. Drafts and logprobs of prompts share
    `logit_rows`, which are as many as `draft_tokens` at least. `draft_model_path` is a smaller
    model with the same vocabulary, in the same process, that drafts where nothing repeats and that
    is faster. `adapters` are LoRA adapters that apply to all sequences of the model: sequences with
    other adapters need an engine of their own, as cells computed with one are invalid for another.
    `projector_path` is the model that encodes pictures or sounds into embeddings; where the size of
    a picture decides, it takes `picture_tokens` at most (None: what the file says). A sound has at
    most `sound_limit_s`. `prefixes` configures prefix files, for prefixes that no slot holds any
    longer; None keeps none. States of such prefixes take at most `prefix_ram_bytes` of host memory;
    None is a quarter of what is available once the model is loaded, 0 keeps none.

    At most `queue_limit` requests wait, each for `queue_deadline_s` at most. Batch requests have
    limits of their own, so that they neither fill the queue of interactive requests nor time out
    before these have finished. `kind` None is detected from the file. At most `connections_limit`
    other processes may use the same worker.
    """

    model_path: Path
    context_tokens: int | None = None
    default_context_tokens: int = 4096
    context_shift_tokens: int = 0
    slots: int = 8
    batch_tokens: int = 512
    logit_rows: int = 32
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
    grammars: GrammarLimits = GrammarLimits()
    prefixes: PrefixLimits | None = None
    prefix_ram_bytes: int | None = None
    outbox_bytes: int = 64 << 20
    connections_limit: int = 64
    log_level: str = "WARNING"


class Start(WorkerConfig, frozen=True, kw_only=True, tag=True):
    """Load a model; always the first command. With `draft_tokens` 0 nothing is drafted. `deaths` is
    the number of workers that died before this one. `listening_fd` is the inherited descriptor of
    the socket at which other processes connect."""

    deaths: int = 0
    listening_fd: int | None = None


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Generate `n` continuations of `prompt`. A text prompt is tokenized with special tokens
    recognised if `parse_special`; `add_bos` puts the model's begin token first where the model
    expects one. `max_tokens` None means until the context is full, which only a number may exceed.
    `echo` gives the prompt's text (and its logprobs, if asked for) as the first deltas of every
    choice. `best_of` generates that many and returns the `n` with the best mean logprob (deltas
    then come only at the end). `suffix` is the text after the generated one, for models with infill
    tokens (fill in the middle). `stop_token_ids` end an answer as an end token does; before
    `min_tokens` nothing ends it but its grammar. `prediction` is text that the answer may repeat;
    it speeds the answer up and does not change it. `media` are the pictures and sounds in a text
    prompt, in their order. `grammar` constrains every answer, in llguidance's Lark: it may hold
    JSON schemas (`%json {...}`) and name special tokens (`<|im_end|>`, `<[271]>`); an answer ends
    where nothing can follow."""

    id: str
    prompt: str | list[int]
    parse_special: bool = True
    add_bos: bool = True
    n: int = 1
    best_of: int | None = None
    max_tokens: int | None = None
    suffix: str | None = None
    min_tokens: int = 0
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    echo: bool = False
    grammar: str | None = None
    cuts: list[int] = []  # offsets in a text prompt that no token reaches across
    media: list[Media] = []
    visible_tokens: list[int] = []  # control tokens whose name is text in the answer
    prediction: str | None = None
    priority: Priority = Priority.INTERACTIVE
    sampling: Sampling = Sampling()

    @property
    def answer_count(self) -> int:
        """Number of answers that are generated; the best `n` of them are returned."""
        return max(self.n, self.best_of or 0)


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Compute one embedding per input, pooled as the model's file says, L2-normalised."""

    id: str
    inputs: list[str | list[int]]


class Rank(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Score the relevance of each of `documents` to `query`."""

    id: str
    query: str
    documents: list[str]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Text behind a shared prompt, and its `labels`: texts that may continue it. `cuts` and `media`
    are those of this text, as in `Generate`."""

    text: str
    labels: list[str]
    cuts: list[int] = []
    media: list[Media] = []


class ScoreLabels(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Compute the logprob of each label of each question, as the continuation of `prompt` and the
    question's text. No label of a question may begin with another one. The prompt's fields are as
    in `Generate`; labels have no special tokens."""

    id: str
    prompt: str
    questions: list[Question]
    parse_special: bool = True
    add_bos: bool = True
    cuts: list[int] = []
    media: list[Media] = []
    priority: Priority = Priority.INTERACTIVE


class Transcribe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Transcribe one window of a recording: up to `WINDOW_S` of signed 16-bit samples, one channel,
    16 kHz. `language` is a code of ISO 639-1; None is detected. `translate` writes English instead.
    `prompt` is text, and `context` the tokens of earlier windows, that come before this window.
    `temperature` 0 takes the likeliest tokens, and rises where these are improbable. Of all but the
    `is_last` window, the end may be left to the next one. A window behind the first of a recording
    `has_begun`, so that a full queue does not refuse it."""

    id: str
    samples: bytes
    language: str | None = None
    translate: bool = False
    prompt: str = ""
    context: list[int] = []
    temperature: float = 0.0
    words: bool = False
    is_last: bool = True
    has_begun: bool = False


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tokenize a text; no token reaches across `cuts`, and `media` are in it, as in `Generate`."""

    id: str
    text: str
    cuts: list[int] = []
    media: list[Media] = []
    parse_special: bool = True
    add_bos: bool = False


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Detokenize tokens."""

    id: str
    tokens: list[int]


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask for the engine's `Status`, which is sent at the next turn."""

    id: str


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cancel the command `id`; it gets no further event. Unknown ids are ignored."""

    id: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Finish the turn and exit."""


Command = (
    Start
    | Generate
    | ScoreLabels
    | Embed
    | Rank
    | Transcribe
    | Tokenize
    | Detokenize
    | Probe
    | Cancel
    | Shutdown
)
