"""Commands to the worker process."""

from pathlib import Path

import msgspec

from llm_backend.engine.messages.values import (
    Adapter,
    GrammarLimits,
    MediaItem,
    ModelKind,
    Pixels,
    PrefixLimits,
    Priority,
    Sampling,
)


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of a worker process: one model, and every limit of its engine."""

    model_path: Path
    kind: ModelKind | None = None  # None: detected from the file
    adapters: tuple[Adapter, ...] = ()  # LoRA adapters that apply to all sequences

    # Context: tokens of one sequence
    context_tokens: int | None = None  # None: trained tokens, at most `default_context_tokens`
    default_context_tokens: int = 4096
    # tokens by which an answer may exceed the context; the oldest tokens are dropped then
    context_shift_tokens: int = 0

    # Passes
    slots: int = 8
    batch_tokens: int = 512  # of one pass
    # of one pass, shared by drafts and logprobs of prompts; at least `draft_tokens`
    logit_rows: int = 32
    # None: one thread for a tiny model, else up to one a core, fewer on a busy machine
    threads: int | None = None

    # Speculation
    draft_tokens: int = 16  # of one sequence in one pass
    draft_model_path: Path | None = None  # a smaller model with the same vocabulary
    draft_heads: bool = True  # without a draft model, the head of the model's own file drafts

    # Media
    projector_path: Path | None = None  # the model that encodes images and audio
    drawing_parts: dict[str, str] = {}  # further files of a model that draws: paths by part
    image_tokens: int | None = None  # of one image; None: by the file
    audio_limit_s: float = 600  # of one audio file

    # Devices, and the fit to their memory
    gpu_layers: int | None = 0  # the output part is one more layer; None: all
    tensor_split: tuple[float, ...] = ()  # shares of the devices
    main_gpu: int = 0  # the only device with `split_mode` `none`
    split_mode: str = "layer"
    host_experts: int = 0  # first layers whose experts stay in host memory
    plan: str = ""  # describes this fit
    use_extra_buffers: bool = True  # native code may repack weights for this processor
    prefill_kernels: bool = True  # not if `flash_attention` is False
    mmap: bool | None = None  # map the file; None: if faster and memory suffices
    mlock: bool = False  # keep the mapped file from swapping

    # KV cache
    kv_unified: bool = False  # one pool of cells for all sequences; meant for GPUs
    cells: int | None = None  # of that pool; None: a whole context for each slot
    cache_type: str = "f16"  # of a cell's numbers, one of `CACHE_TYPES`
    # half precision, which quantized cells need; None: the native code decides
    flash_attention: bool | None = None
    prefixes: PrefixLimits | None = None  # prefix files; None: no files
    # for states of prefixes without a slot; None: a quarter of the available memory; 0: no states
    prefix_ram_limit_bytes: int | None = None
    generated_tokens_bytes: int = 32 << 20  # tokens of recent chats as generated; 0: none

    # Requests: batch requests have limits of their own, so that they neither fill the queue of
    # interactive requests nor time out before those have finished
    queue_limit: int = 256
    queue_deadline_s: float = 60
    batch_queue_limit: int = 256
    batch_queue_deadline_s: float = 3600
    choices_limit: int = 128
    stops_limit: int = 64
    inputs_limit: int = 2048
    labels_limit: int = 10_000
    grammars: GrammarLimits = GrammarLimits()

    # Process
    outbox_bytes: int = 64 << 20  # unsent events of one connection
    connections_limit: int = 64  # other processes that use this worker
    log_level: str = "WARNING"


class LoadModel(WorkerConfig, frozen=True, kw_only=True, tag=True):
    """Load a model; always the first command. With `draft_tokens` 0 nothing is drafted. `deaths` is
    the number of workers that died before this one. `listening_fd` is the inherited descriptor of
    the socket at which other processes connect."""

    deaths: int = 0
    listening_fd: int | None = None


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Generate `n` continuations of `prompt`. A text prompt is tokenized with special tokens
    recognised if `parse_special`; `add_bos` puts the model's begin token first where the model
    expects one. `max_tokens` None means until the context is full; only an explicit `max_tokens`
    lets an answer exceed the context. `echo` gives the prompt's text (and its logprobs, if asked
    for) as the first deltas of every choice. `best_of` generates that many and returns the `n` with
    the best mean logprob (deltas then come only at the end). `suffix` is the text after the
    generated one, for models with infill tokens (fill in the middle). `stop_token_ids` end an
    answer as an end token does; before `min_tokens` only its grammar or a full context ends it.
    `is_chat`: later prompts are expected to contain this answer, and this prompt may contain
    earlier ones; these get the tokens that were generated, not a new tokenization of the same text.
    `prediction` is text that the answer may repeat; it speeds the answer up and does not change it.
    `media` are the images and audio in a text prompt, in their order. `grammar` constrains every
    answer, in llguidance's Lark: it may hold JSON schemas (`%json {...}`) and name special tokens
    (`<|im_end|>`, `<[271]>`); an answer ends where nothing can follow."""

    id: str
    prompt: str | list[int]
    parse_special: bool = True
    add_bos: bool = True
    is_chat: bool = False
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
    media: list[MediaItem] = []
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
    """Text after a shared prompt, and its `labels`: texts that may continue it. `cuts` and `media`
    are those of this text, as in `Generate`."""

    text: str
    labels: list[str]
    cuts: list[int] = []
    media: list[MediaItem] = []


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
    media: list[MediaItem] = []
    priority: Priority = Priority.INTERACTIVE


class Transcribe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Transcribe one window of a recording: up to `WINDOW_S` of signed 16-bit samples, one channel,
    16 kHz. `language` is a code of ISO 639-1; None is detected. `translate` writes English instead.
    `prompt` is text, and `context` the tokens of earlier windows, that come before this window.
    `temperature` 0 takes the likeliest tokens, with a rising temperature where these are
    improbable. Unless the window `is_last`, its end may be left to the next window. A window after
    the first of a recording `has_begun`, so that a full queue does not refuse it."""

    id: str = ""
    samples: bytes
    language: str | None = None
    translate: bool = False
    prompt: str = ""
    context: list[int] = []
    temperature: float = 0.0
    words: bool = False
    is_last: bool = True
    has_begun: bool = False


class Speak(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Read a sentence aloud as the `speaker` of this number; `speed` 1 is the voice's own. Where
    speakers are files, numbers change when a file is added, so `speaker_name` names the speaker
    too. With `sample`, the speaker is the person of these samples (signed, 16 bits, in the rate of
    such models). A voice of several languages reads the sentence in `language`, a code of ISO 639
    or an English name; without one, in the language of the speaker. `phonemes` are those of the
    sentence, for a voice that cannot find them itself. A sentence after the first of a text
    `has_begun`, so that a full queue does not refuse it."""

    id: str = ""
    text: str
    speaker: int = 0
    speaker_name: str | None = None
    sample: bytes = b""
    language: str = ""
    speed: float = 1.0
    phonemes: str = ""
    has_begun: bool = False


class Diarize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tell the speakers of one block of a recording apart: up to `BLOCK_S` of samples, as those of
    `Transcribe`. `voices` are those of the blocks before it, as the engine returned them; voices of
    `references`, samples of up to `REFERENCE_S`, follow them. Voices whose cosine distance is below
    `threshold` are one speaker's. A block after the first `has_begun`, so that a full queue does
    not refuse it."""

    id: str = ""
    samples: bytes
    voices: list[list[float]] = []
    references: list[bytes] = []
    threshold: float = 0.5
    has_begun: bool = False


class Draw(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Draw one image. `guidance` is how closely it follows the prompt, against `negative_prompt`,
    and `distilled_guidance` is the same for guidance-distilled models. `sampler` and `scheduler`
    are the library's names; None is the model's own. The image begins with `source`, which has the
    same size, and departs from it by `strength`, from 0 to 1. `mask` has a byte for each pixel; the
    pixel is drawn again where the byte is above 127. Up to `previews` events show it unfinished.
    With `tiles`, the autoencoder takes parts of the image, and so less memory."""

    id: str = ""
    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    guidance: float
    negative_prompt: str = ""
    distilled_guidance: float = 3.5
    sampler: str | None = None
    scheduler: str | None = None
    source: Pixels | None = None
    mask: bytes | None = None
    strength: float = 0.75
    previews: int = 0
    tiles: bool = False
    has_begun: bool = False


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Tokenize a text; no token reaches across `cuts`, and `media` are in it, as in `Generate`."""

    id: str
    text: str
    cuts: list[int] = []
    media: list[MediaItem] = []
    parse_special: bool = True
    add_bos: bool = False


class Detokenize(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Detokenize tokens."""

    id: str
    tokens: list[int]


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Ask for the engine's `Status`, which is sent at the next step."""

    id: str


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Cancel the command `id`; it gets no further event. Unknown ids are ignored."""

    id: str


class Shutdown(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Finish the step and exit."""


ComputedCommand = Generate | ScoreLabels | Embed | Rank | Transcribe | Speak | Diarize | Draw
"""Commands that a model computes."""

Command = LoadModel | ComputedCommand | Tokenize | Detokenize | Probe | Cancel | Shutdown
