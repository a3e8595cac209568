"""Values of commands and events."""

from enum import StrEnum

import msgspec

PREFIX_BLOCK = 64
"""Tokens of a block, by which saved prefixes are indexed, in files and in host memory."""

ENDED_ITSELF_STATUS = 75
"""Exit status of a worker that ended itself, because its native code computed a cancelled request
and could not be stopped."""

WINDOW_S = 30
"""Longest part of a recording that one command transcribes, in seconds."""

BLOCK_S = 300
"""Longest part of a recording whose speakers one command tells apart, in seconds."""

REFERENCE_S = 10
"""Longest sample of a known speaker, in seconds."""

SAMPLES_HZ = 16_000
"""Rate of the samples of a recording."""

SAMPLE_BYTES = 2
"""Size of a sample of PCM, a signed 16-bit integer."""

_USUAL_PENALTY, _USUAL_TEMPERATURE = 2.0, 2.0  # the largest that OpenAI allows
_USUAL_REPEAT_PENALTY = 1.5  # clients' defaults are 1.1 to 1.3


class FinishReason(StrEnum):
    """Reason why a sequence ended without failure."""

    STOP = "stop"  # end-of-generation token or stop string
    LENGTH = "length"  # max_tokens, or the context is full


class Priority(StrEnum):
    """Scheduling priority; none of them starves."""

    INTERACTIVE = "interactive"  # a user waits for the answer
    BATCH = "batch"  # uses what interactive requests leave; may be preempted for one


class ModelKind(StrEnum):
    """Kind of a model, by the command that it answers."""

    CHAT = "chat"  # Generate, ScoreLabels
    EMBEDDING = "embedding"  # Embed
    RERANK = "rerank"  # Rank
    TRANSCRIPTION = "transcription"  # Transcribe
    SPEECH = "speech"  # Speak
    DIARIZATION = "diarization"  # Diarize
    IMAGES = "images"  # Draw


SEQUENTIAL_KINDS = frozenset(
    {ModelKind.TRANSCRIPTION, ModelKind.SPEECH, ModelKind.DIARIZATION, ModelKind.IMAGES}
)
"""Kinds of models that are not language models, and compute one command at a time."""


class MediaKind(StrEnum):
    """Input of a model besides text."""

    IMAGE = "image"
    AUDIO = "audio"


class Pixels(msgspec.Struct, frozen=True, kw_only=True):
    """An image without a format: three bytes a pixel for red, green and blue, row by row."""

    width: int
    height: int
    data: bytes


class Failure(StrEnum):
    """Reason why a command was refused or failed."""

    CONTEXT_LENGTH = "context_length"  # can never fit the context
    QUEUE_FULL = "queue_full"  # try again later
    QUEUE_DEADLINE = "queue_deadline"  # waited longer than allowed
    INVALID = "invalid"  # a token outside the vocabulary, or an input that no model could take
    UNSUPPORTED = "unsupported"  # this model cannot compute it: embeddings on a chat model, say
    INTERNAL = "internal"  # the engine failed this command and goes on
    CRASHED = "crashed"  # the request is a likely cause of crashes of the worker; it is quarantined


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling parameters; the defaults do not change the model's distribution.

    `logprobs` is the number of alternatives (0 to 20) that accompany each token, None for no
    logprobs; with `constrained_logprobs` they are relative to the tokens that a grammar allows.
    `frequency_penalty` and `presence_penalty` are additive as OpenAI's and count generated tokens;
    `repeat_penalty` is llama.cpp's factor, on the last `repeat_last_n` tokens (None: on all).
    Mirostat (0: off, or its version), XTC, typical-p and DRY are llama.cpp's, too. `sampling`
    documents their meaning and order. `seed` None is a random one.
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

    @property
    def is_steered(self) -> bool:
        """True if these parameters could make unlikely tokens likely."""
        penalties = (self.frequency_penalty, self.presence_penalty)
        are_usual = all(0 <= one <= _USUAL_PENALTY for one in penalties)
        are_usual &= 1 <= self.repeat_penalty <= _USUAL_REPEAT_PENALTY
        is_usual = are_usual and self.temperature <= _USUAL_TEMPERATURE
        can_drop_likeliest = self.mirostat or self.xtc_probability > 0 or self.typical_p < 1
        return bool(self.logit_bias or can_drop_likeliest or self.dry_multiplier) or not is_usual


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter's file, and its scale."""

    path: str
    scale: float = 1.0


class MediaItem(msgspec.Struct, frozen=True, kw_only=True):
    """An image or audio in a prompt, at the offset `at` of its text. An image is rows of `width`
    pixels of three bytes, audio a WAV or MP3 file. Items with equal `digest`s are the same."""

    at: int
    medium: MediaKind
    data: bytes
    digest: bytes
    width: int = 0
    height: int = 0


class PrefixLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Configuration of prefix files, which hold prefixes that no slot holds any longer: at most
    `bytes` of them, in the model's own folder within `folder`. A file is written if at least
    `tokens` tokens are new, and read if it saves at least as many, counted in whole blocks."""

    folder: str
    bytes: int = 4 << 30
    tokens: int = 256

    def __post_init__(self) -> None:
        if self.tokens < PREFIX_BLOCK:
            raise ValueError(
                f"a prefix must have at least {PREFIX_BLOCK} tokens, not {self.tokens}"
            )


class GrammarLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on the cost of a grammar. Times are of one slow core and a vocabulary of 49,152
    tokens.

    Limits of the source:
    - `bytes`: as long as OpenAI's longest schema; the compiler's stack grows with them.
    - `literals`: number of literals and expressions; 1,000 take up to 500 ms to compile.
    - `literal`: characters of a literal or an expression; 2,000 take 1 ms a step.
    - `intersections`: expressions that apply to one value (`&`, or patterns under `allOf`); 12
      take 50 ms, 20 take minutes.
    - `nesting`: depth of a schema.
    - `properties`: properties of a schema; 1,000 optional ones take 150 ms to compile.
    - `choices`: values of its enums; 5,000 take 20 ms.
    - `multiple`: least common multiple of its `multipleOf`s, without their decimal point; 10,000
      takes 60 ms, 1,000,000 takes 14 s.

    Limits of the native code, in its own units:
    - `symbols`: symbols of a compiled grammar.
    - `row_items`: items that its parser holds at one position; 500 bound a token of an ambiguous
      grammar to 30 ms, 2,000 to 1.5 s.
    - `step_items`: items of the parser in one step; about 20 a microsecond.
    - `compile_fuel`, `step_fuel`: about 20 a microsecond.
    - `lexer_states`: 1 to 2 KB each.
    """

    cached: int = 32  # compiled grammars that are kept
    bytes: int = 128 << 10
    literals: int = 1000
    literal: int = 4096
    intersections: int = 10
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


class MissingKernels(StrEnum):
    """Reason why the prefill kernels do not compute."""

    OTHER_SYSTEM = "they are for Linux on x86"
    NOT_COMPILED = "they are not compiled"
    NO_INSTRUCTIONS = "this processor lacks AVX2, FMA or F16C"
    OTHER_VERSION = "they are for another version of llama.cpp"
    WRONG_RESULTS = "their results on this processor are wrong"


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Information about the loaded model. Sizes in tokens, parameters and bytes; the defaults are
    for what a model lacks or does not report."""

    kind: ModelKind
    architecture: str
    name: str
    description: str  # llama.cpp's one-line description: architecture, size, quantization
    parameters: int = 0
    size_bytes: int
    vocabulary_size: int = 0
    embedding_size: int = 0
    trained_context_tokens: int = 0
    context_tokens: int = 0  # maximum length of one sequence in this engine
    slots: int = 1  # number of sequences that run concurrently
    chat_template: str | None = None
    tool_template: str | None = None  # for chats with tools, where the file has two templates
    bos_token: str = ""
    eos_token: str = ""
    control_tokens: list[str] = []  # their names
    can_infill: bool = False
    media: list[MediaKind] = []  # supported inputs besides text
    extra_buffers: bool | None = None  # weight repacking; None if the library has none
    backend: str = ""  # devices that compute the model, by llama.cpp's names and descriptions
    missing_kernels: MissingKernels | None = None  # None if they compute, or are not wanted
    gpu_bytes: int = 0  # weights that GPUs hold
    plan: str = ""  # sentence on its fit to the machine's memory


class TimedWord(msgspec.Struct, frozen=True, kw_only=True):
    """A word of a transcript, in seconds since the window began."""

    text: str
    start_s: float
    end_s: float


class TranscriptSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a transcript, in seconds since the window began. `tokens` include timestamps,
    `logprobs` only the tokens of its text. `no_speech_probability` is that of the window."""

    start_s: float
    end_s: float
    text: str
    tokens: list[int]
    logprobs: list["TokenLogprob"]
    no_speech_probability: float
    words: list[TimedWord] = []


class SpeakerTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a speaker speaks, in seconds since the block began. `speaker` is an index
    into the list of voices."""

    start_s: float
    end_s: float
    speaker: int


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One generated token (or prompt token, under echo): its bytes, natural-log probability
    under the model's distribution before sampling filters, and the most likely alternatives,
    best first. `logprob` is None for the first token of a prompt. The first `omitted_bytes` are not
    in the text: all of a control token's name, and the space that some tokenizers add to a text."""

    token: int
    bytes: bytes
    logprob: float | None
    omitted_bytes: int = 0
    top: list["TokenLogprob"] = []
