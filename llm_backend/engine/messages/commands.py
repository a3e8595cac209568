"""Commands to the worker process."""

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


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Load a model; always the first command. It has every limit of the worker.

    `context_tokens` None is what the model was trained for, at most `default_context_tokens`.
    An answer may have `context_shift_tokens` beyond the context, by dropping its oldest tokens.
    `cells` None gives every slot cells for a whole context. `kind` None is detected from the file.
    `logit_rows` limits the rows of logits that one pass computes for prompt logprobs and for
    drafts, of which one sequence has at most `draft_tokens`; with 0 nothing is drafted.
    `draft_model_path` is a second, smaller model that writes drafts. `adapters` apply to all
    sequences. `projector_path` is the model that encodes pictures or sounds into embeddings. A
    picture has at most `picture_tokens`, if its projector leaves the choice; a sound has at most
    `sound_limit_s`. `threads` is the largest thread count of a pass; it may have fewer unless
    `are_threads_set`. The experts of the first `host_experts` layers stay in host memory although
    GPUs compute these layers; `plan` describes the fit to the machine. `prefixes` configures prefix
    files, for prefixes that no slot holds any longer; None is none. States of such prefixes take at
    most `prefix_ram_bytes` of host memory: None is a quarter of what is available once the model is
    loaded, 0 is none. `listening_fd` is the inherited descriptor of the socket at which at most
    `connections_limit` other processes connect.
    """

    model_path: str
    context_tokens: int | None
    default_context_tokens: int
    context_shift_tokens: int
    slots: int
    batch_tokens: int
    logit_rows: int
    draft_tokens: int
    draft_model_path: str | None
    adapters: list[Adapter]
    projector_path: str | None
    picture_tokens: int | None
    sound_limit_s: float
    threads: int
    are_threads_set: bool
    gpu_layers: int
    tensor_split: list[float]
    main_gpu: int
    split_mode: str
    host_experts: int
    plan: str
    use_extra_buffers: bool
    deaths: int = 0  # of the workers before this one
    kv_unified: bool
    cells: int | None
    cache_type: str
    flash_attention: bool | None
    mmap: bool | None
    mlock: bool
    kind: ModelKind | None
    queue_limit: int
    queue_deadline_s: float
    batch_queue_limit: int
    batch_queue_deadline_s: float
    choices_limit: int
    stops_limit: int
    inputs_limit: int
    labels_limit: int
    grammars: GrammarLimits
    prefixes: PrefixLimits | None
    prefix_ram_bytes: int | None
    outbox_bytes: int
    listening_fd: int | None
    connections_limit: int
    log_level: int


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
