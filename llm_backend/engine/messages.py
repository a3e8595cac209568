"""What travels between the API process and the engine process: frozen values, framed as msgpack.

Commands go down (`Start` first, then `Generate`, `Embed`, `Rank`, `Tokenize`, `Detokenize`,
`Probe`, `Cancel`, `Shutdown`), events come up (`Ready` or `NotReady` first, then `Queued`,
`Accepted`, `Delta`, `Embedded`, `Ranked`, `Tokenized`, `Detokenized`, `Status`, `Failed`). Every
event but the first names the command it answers by `id`. The engine speaks tokens and text; what a
chat is, it does not know.
"""

from enum import StrEnum

import msgspec

__all__ = [
    "Accepted",
    "Adapter",
    "Cancel",
    "Command",
    "Delta",
    "Detokenize",
    "Detokenized",
    "Embed",
    "Embedded",
    "Event",
    "Failed",
    "Failure",
    "FinishReason",
    "Generate",
    "GrammarLimits",
    "ModelInfo",
    "ModelKind",
    "NotReady",
    "Priority",
    "Probe",
    "Queued",
    "Rank",
    "Ranked",
    "Ready",
    "Sampling",
    "Shutdown",
    "Start",
    "Status",
    "TokenLogprob",
    "Tokenize",
    "Tokenized",
    "joined",
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A frozen value that knows its own name on the wire."""


class FinishReason(StrEnum):
    """Why a sequence ended by itself."""

    STOP = "stop"  # end-of-generation token or stop string
    LENGTH = "length"  # max_tokens, or the context is full


class Priority(StrEnum):
    """Who goes first. None of them starves."""

    INTERACTIVE = "interactive"  # somebody waits for the answer
    BATCH = "batch"  # takes what interactive requests leave; may be set aside for one


class ModelKind(StrEnum):
    """What a model is for, and so which command it answers."""

    CHAT = "chat"  # Generate
    EMBEDDING = "embedding"  # Embed
    RERANK = "rerank"  # Rank


class Failure(StrEnum):
    """Why a command was refused or given up."""

    CONTEXT_LENGTH = "context_length"  # can never fit the context
    QUEUE_FULL = "queue_full"  # try again later
    QUEUE_DEADLINE = "queue_deadline"  # waited longer than allowed
    INVALID = "invalid"  # a token outside the vocabulary, an input that no model could take
    UNSUPPORTED = "unsupported"  # this model cannot do that: embeddings on a chat model, say
    INTERNAL = "internal"  # the engine failed this command and goes on
    CRASHED = "crashed"  # the same request has killed the engine twice; it is not tried again


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen; the defaults change nothing of the model's distribution.

    `logprobs` is None for none, else how many alternatives (0 to 20) accompany each token;
    with `constrained_logprobs` they are probabilities among the tokens that a grammar allows.
    `frequency_penalty` and `presence_penalty` are additive as OpenAI's and count generated tokens;
    `repeat_penalty` is llama.cpp's factor, on the last `repeat_last_n` tokens (None: on all), and
    so are Mirostat (0: off, or its version), XTC, typical-p and DRY. What they mean, and in which
    order, is told in `sampling`. `seed` None draws one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last_n: int | None = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int | None = 64  # None: all
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    logprobs: int | None = None
    constrained_logprobs: bool = False


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter's file, and how strongly it is applied."""

    path: str
    scale: float = 1.0


class GrammarLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a grammar may cost. Times are of one slow core and a vocabulary of 49,152 tokens.

    Of its source: `bytes` (as long as OpenAI's longest schema; the compiler's stack grows with it),
    the number of `literals` and expressions (1,000 take up to 500 ms to compile) and the characters
    of each one (`literal`; 1 ms a step for 2,000), how many expressions `meet` in one value (`&`,
    or patterns under `allOf`: 12 take 50 ms, 20 take minutes), the `nesting` of a schema, its
    `properties` (1,000 optional ones take 150 ms to compile), the `choices` of its enums (5,000
    take 20 ms), and the digits of its `multipleOf`s, as a common `multiple` (10,000 take 60 ms,
    1,000,000 take 14 s).

    Of the native code, which has units of its own: the `symbols` of a compiled grammar, the
    `row_items` that its parser holds at one place (500 bound a token of an ambiguous grammar to 30
    ms, 2,000 to 1.5 s) and the `step_items` in one step (20 a microsecond), `compile_fuel` and
    `step_fuel` (about 20 a microsecond), and `lexer_states` (1 to 2 KB each).
    """

    kept: int = 32
    bytes: int = 128 << 10
    literals: int = 1000
    literal: int = 4096
    meet: int = 10
    nesting: int = 100
    properties: int = 1000
    choices: int = 5000
    multiple: int = 10_000
    symbols: int = 100_000
    row_items: int = 500
    step_items: int = 10_000
    compile_fuel: int = 200_000
    step_fuel: int = 50_000
    lexer_states: int = 20_000


class Start(_Message, frozen=True, kw_only=True):
    """Load a model; always the first command. Every bound that the worker keeps is in here.

    `context_tokens` None is what the model was trained for, at most `default_context_tokens`.
    `cells` None gives every slot cells for a whole context. `kind` None believes the file.
    `logit_rows` bounds the rows of logits that one pass computes for prompt logprobs and for
    drafts, of which one sequence has at most `draft_tokens`; with 0 nothing is drafted.
    `draft_model_path` is a second, smaller model that writes drafts. `adapters` change the model,
    for all that it computes.
    `door` is the inherited descriptor of the socket at which guests are let in.
    """

    model_path: str
    context_tokens: int | None
    default_context_tokens: int
    slots: int
    batch_tokens: int
    logit_rows: int
    draft_tokens: int
    draft_model_path: str | None
    adapters: list[Adapter]
    threads: int
    gpu_layers: int
    use_extra_buffers: bool
    unified_cells: bool
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
    grammars: GrammarLimits
    outbox_bytes: int
    door: int | None
    guests_limit: int
    log_level: int


class Generate(_Message, frozen=True, kw_only=True):
    """Continue `prompt` `n` times. A text prompt is tokenized with special tokens recognised if
    `parse_special`; `add_bos` puts the model's begin token first where the model wants one.
    `max_tokens` None means until the context is full. `echo` gives the prompt's text (and its
    logprobs, if asked for) as the first deltas of every choice. `best_of` generates that many and
    gives the `n` with the best mean logprob (deltas then come only at the end). `suffix` is the
    text that follows what is generated, for models that have tokens for a text with a hole.
    `stop_token_ids` end an answer as an end token does; before `min_tokens` nothing ends it but its
    grammar. `prediction` is text that the answer may repeat; it makes it come faster and changes
    nothing. `grammar` is what every answer must follow, in llguidance's Lark: it may hold JSON
    schemas (`%json {...}`) and name special tokens (`<|im_end|>`, `<[271]>`); an answer ends where
    nothing can follow.
    """

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
    cuts: list[int] = []  # places in a text prompt that no token reaches across
    shown_tokens: list[int] = []  # control tokens whose name is text in the answer
    prediction: str | None = None
    priority: Priority = Priority.INTERACTIVE
    sampling: Sampling = Sampling()


class Embed(_Message, frozen=True, kw_only=True):
    """One vector per input, pooled as the model says, L2-normalised."""

    id: str
    inputs: list[str | list[int]]


class Rank(_Message, frozen=True, kw_only=True):
    """How relevant each of `documents` is to `query`."""

    id: str
    query: str
    documents: list[str]


class Tokenize(_Message, frozen=True, kw_only=True):
    """The tokens of a text; none reaches across `cuts`, as in `Generate`."""

    id: str
    text: str
    cuts: list[int] = []
    parse_special: bool = True
    add_bos: bool = False


class Detokenize(_Message, frozen=True, kw_only=True):
    """The text of tokens."""

    id: str
    tokens: list[int]


class Probe(_Message, frozen=True, kw_only=True):
    """How busy are you? Answered with `Status` at the next turn."""

    id: str


class Cancel(_Message, frozen=True, kw_only=True):
    """Forget the command `id`; nothing more comes of it. Unknown ids are ignored."""

    id: str


class Shutdown(_Message, frozen=True, kw_only=True):
    """Finish the turn and exit."""


Command = Start | Generate | Embed | Rank | Tokenize | Detokenize | Probe | Cancel | Shutdown


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the loaded model says of itself. Sizes in tokens, parameters and bytes."""

    architecture: str
    name: str
    description: str  # llama.cpp's one-line description: architecture, size, quantization
    parameters: int
    size_bytes: int
    vocabulary_size: int
    embedding_size: int
    trained_context_tokens: int
    context_tokens: int  # what one sequence can hold here
    slots: int  # how many sequences run at once
    chat_template: str | None
    tool_template: str | None  # the one for chats with tools, where the file has two
    bos_token: str
    eos_token: str
    control_tokens: list[str]  # their names
    kind: ModelKind
    can_infill: bool
    extra_buffers: bool  # False after a restart without weight repacking


class Ready(_Message, frozen=True, kw_only=True):
    """The model is loaded and has computed a forward pass, in the process `pid`."""

    info: ModelInfo
    pid: int


class NotReady(_Message, frozen=True, kw_only=True):
    """The model cannot be served; the worker exits. `message` is one sentence that says why."""

    message: str


class Queued(_Message, frozen=True, kw_only=True):
    """The command has been taken: it is one that can be answered, and waits for its place. Sent
    before anything else is done, as `Accepted` is, so that it is known at whose command the engine
    was if it dies.
    """

    id: str


class Accepted(_Message, frozen=True, kw_only=True):
    """A `Generate`, `Embed` or `Rank` has got its place and is computed from now on; its answer
    follows. `prediction_tokens` are those of its prediction, as many as an answer could hold.
    """

    id: str
    prompt_tokens: int
    prediction_tokens: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One chosen token (or prompt token, under echo): its bytes, natural-log probability under the
    model's distribution before sampling filters, and the most likely alternatives, best first.
    `logprob` is None for the first prompt token, which nothing precedes.
    """

    token: int
    bytes: bytes
    logprob: float | None
    top: list["TokenLogprob"] = []


class Delta(_Message, frozen=True, kw_only=True):
    """What one turn added to choice `index`. `text` is whole characters, cut before a stop string.
    `completion_tokens` counts this choice's generated tokens so far. The last delta of a choice has
    `finish_reason`; `stop_sequence` names the stop string that matched, if one did.
    `cached_tokens` is how much of the prompt was taken from shared cells. So far `drafted_tokens`
    were computed ahead for this choice, of which `accepted_tokens` came next indeed;
    `predicted_tokens` of its tokens were as the request's prediction said.
    """

    id: str
    index: int
    text: str
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    predicted_tokens: int = 0
    logprobs: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None


class Embedded(_Message, frozen=True, kw_only=True):
    """Vectors as rows of little-endian float32, `embedding_size` each, in the order of inputs."""

    id: str
    vectors: bytes
    embedding_size: int
    prompt_tokens: int


class Ranked(_Message, frozen=True, kw_only=True):
    """Relevances from 0 to 1, in the order of documents."""

    id: str
    scores: list[float]
    prompt_tokens: int


class Tokenized(_Message, frozen=True, kw_only=True):
    """The answer to `Tokenize`."""

    id: str
    tokens: list[int]


class Detokenized(_Message, frozen=True, kw_only=True):
    """The answer to `Detokenize`."""

    id: str
    text: str


class Status(_Message, frozen=True, kw_only=True):
    """The answer to `Probe`: what is going on, and sums since the worker was started.

    `sequences` adds up how many each pass worked on: divided by `passes` it is the mean occupancy
    of a batch. `busy_s` is the time spent in turns, without rests. Of `placed_tokens`, those of
    texts that got a slot, `cached_tokens` were in cells already; `generated_tokens` were chosen.
    """

    id: str
    running: int  # sequences or inputs that have their place
    waiting: int  # requests that have had no slot yet: in the queue, or their grammar is compiled
    held_tokens: int  # in KV cells, of running and of finished sequences
    passes: int
    sequences: int
    computed_tokens: int
    busy_s: float
    placed_tokens: int
    cached_tokens: int
    generated_tokens: int


class Failed(_Message, frozen=True, kw_only=True):
    """The command ended without its answer; nothing more comes of it. `field` is the one of the
    command's fields that is to blame, if it is one.
    """

    id: str
    failure: Failure
    message: str
    field: str | None = None


Event = (
    Ready
    | NotReady
    | Queued
    | Accepted
    | Delta
    | Embedded
    | Ranked
    | Tokenized
    | Detokenized
    | Status
    | Failed
)


def joined(earlier: Delta, later: Delta) -> Delta:
    """Two consecutive deltas of one choice as one."""
    return Delta(
        id=earlier.id,
        index=earlier.index,
        text=earlier.text + later.text,
        completion_tokens=later.completion_tokens,
        cached_tokens=later.cached_tokens,
        drafted_tokens=later.drafted_tokens,
        accepted_tokens=later.accepted_tokens,
        predicted_tokens=later.predicted_tokens,
        logprobs=[*earlier.logprobs, *later.logprobs],
        finish_reason=later.finish_reason,
        stop_sequence=later.stop_sequence,
    )
