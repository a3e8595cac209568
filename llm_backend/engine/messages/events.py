"""Events from the worker process."""

import msgspec

from llm_backend.engine.messages.values import (
    Failure,
    FinishReason,
    MediaKind,
    ModelInfo,
    Pixels,
    SpeakerTurn,
    TokenLogprob,
    TranscriptSegment,
)


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model is loaded and has computed a forward pass, in the process `pid`."""

    info: ModelInfo
    pid: int


class NotReady(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model cannot be served; the worker exits. `message` is one sentence that says why;
    `lacks_memory` is True if a smaller memory plan may fit."""

    message: str
    lacks_memory: bool = False


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The command is valid and in the worker's queue, where it waits for a slot. Like
    `SlotAssigned`, it is sent before the work that it announces. So if the worker crashes, the
    supervisor knows which commands may be the cause."""

    id: str


class MediaSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Position of an image or audio in the prompt: `tokens` tokens from `start` on."""

    medium: MediaKind
    start: int
    tokens: int


class SlotAssigned(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A `ComputedCommand` has got a slot and is computed from now on; its answer follows.
    `prediction_tokens` is the number of tokens of the request's prediction, cut to the longest
    possible answer. `media` lists images and audio in the order of the prompt."""

    id: str
    prompt_tokens: int
    prediction_tokens: int = 0
    media: list[MediaSpan] = []

    def tokens_of(self, medium: MediaKind, until: int | None = None) -> int:
        """Returns the number of tokens of one medium among the first `until` tokens of the
        prompt; among all if that is None."""
        end = self.prompt_tokens if until is None else until
        return sum(
            min(one.tokens, max(0, end - one.start)) for one in self.media if one.medium is medium
        )


class Delta(msgspec.Struct, frozen=True, kw_only=True, tag=True, omit_defaults=True):
    """Tokens that one step added to choice `index`. `text` is whole characters, cut before a stop
    string. `completion_tokens` counts this choice's generated tokens so far. The last delta of a
    choice has `finish_reason`; `stop_sequence` names the stop string that matched, if one did.
    `cached_tokens` is the number of prompt tokens from a cached prefix. Counts of this choice so
    far: `drafted_tokens` were drafted, `accepted_tokens` of them were accepted, and
    `predicted_tokens` of the generated tokens were as in the request's prediction.
    `discarded_tokens` were generated for the answers that `best_of` did not choose; before it
    chooses, deltas without text count those of all answers there."""

    id: str
    index: int
    text: str
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    predicted_tokens: int = 0
    discarded_tokens: int = 0
    logprobs: list[TokenLogprob] = []
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None


class LabelsScored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `ScoreLabels`: logprobs of the labels of each question, in the command's order.
    Each is the natural logarithm of a label's probability under the model's own distribution, given
    the tokens with which all labels of the question begin. `cached_tokens` of the shared prompt
    were in a cached prefix."""

    id: str
    logprobs: list[list[float]]
    cached_tokens: int


class Embedded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Embeddings as rows of little-endian float32: [inputs, embedding_size], in the order of
    inputs."""

    id: str
    vectors: bytes
    embedding_size: int
    prompt_tokens: int


class RankScores(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Relevances from 0 to 1, in the order of documents."""

    id: str
    scores: list[float]
    prompt_tokens: int


class Transcribed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Transcribe`: the segments of the first `end_s` of the window; the next one
    begins there. `language` is the code of the given or detected language, `language_name` its
    English name."""

    id: str
    segments: list[TranscriptSegment]
    language: str
    language_name: str
    end_s: float


class Spoken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Speak`: signed 16-bit samples of one channel; none if the voice cannot
    pronounce any word of the sentence."""

    id: str
    samples: bytes
    rate_hz: int


class Diarized(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Diarize`. `turns` are in the order of their starts, and may overlap. `voices`
    are all speakers heard so far, as vectors. The direction of a vector is the voice, and its
    length is the time in which the voice was heard; it is zero if that time was too short."""

    id: str
    turns: list[SpeakerTurn]
    voices: list[list[float]]


class DrawingStep(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A step of a `Draw` was computed: `step` of `steps`. `preview` shows the image so far,
    in fewer pixels."""

    id: str
    step: int
    steps: int
    preview: Pixels | None = None


class ImageDrawn(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Draw`."""

    id: str
    image: Pixels


class Tokenized(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Tokenize`; None stands for each token of an image or audio."""

    id: str
    tokens: list[int | None]


class Detokenized(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Detokenize`."""

    id: str
    text: str


class Status(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Probe`: current load, and counters since the worker was started.
    `deaths` counts earlier workers that died or could not start.

    `sequences` is the sum of the sequences of each pass: divided by `passes` it is the mean batch
    size. `busy_s` is the time spent in steps, without idle time. `admitted_tokens` counts the
    tokens of sequences that got a slot, again after a preemption; `cached_tokens` of them were in a
    cached prefix. `media_tokens` are tokens of images and audio, which are encoded apart from
    passes, in `media_s` seconds. `context_shifts` counts how often the oldest tokens of an answer
    were dropped. There are now `prefix_files` of `prefix_bytes`. `prefix_reads` and `prefix_writes`
    count files read and written so far; reading saved the prefill of `prefix_read_tokens`. The
    `prefix_ram_*` are the same for the host prefix cache.
    """

    id: str
    running: int  # sequences or inputs that are being computed
    waiting: int  # requests without a slot: queued, being tokenized, or compiling a grammar
    cell_tokens: int  # in KV cells, of running and of finished sequences
    passes: int
    sequences: int
    computed_tokens: int
    busy_s: float
    admitted_tokens: int
    cached_tokens: int
    generated_tokens: int
    media_tokens: int
    media_s: float
    running_tokens: int = 0  # in KV cells, of running sequences
    context_shifts: int = 0
    deaths: int = 0
    prefix_files: int = 0
    prefix_bytes: int = 0
    prefix_reads: int = 0
    prefix_read_tokens: int = 0
    prefix_writes: int = 0
    prefix_ram_states: int = 0
    prefix_ram_bytes: int = 0
    prefix_ram_saves: int = 0
    prefix_ram_restores: int = 0
    prefix_ram_tokens: int = 0


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The command failed; it gets no further event. `field` is the invalid field of the command,
    if there is one, and `location` a JSON pointer into it."""

    id: str
    failure: Failure
    message: str
    field: str | None = None
    location: str | None = None


Event = (
    Ready
    | NotReady
    | Queued
    | SlotAssigned
    | Delta
    | LabelsScored
    | Embedded
    | RankScores
    | Transcribed
    | Spoken
    | Diarized
    | DrawingStep
    | ImageDrawn
    | Tokenized
    | Detokenized
    | Status
    | Failed
)


def join_deltas(earlier: Delta, later: Delta) -> Delta:
    """Joins two consecutive deltas of one choice."""
    return Delta(
        id=earlier.id,
        index=earlier.index,
        text=earlier.text + later.text,
        completion_tokens=later.completion_tokens,
        cached_tokens=later.cached_tokens,
        drafted_tokens=later.drafted_tokens,
        accepted_tokens=later.accepted_tokens,
        predicted_tokens=later.predicted_tokens,
        discarded_tokens=later.discarded_tokens,
        logprobs=[*earlier.logprobs, *later.logprobs],
        finish_reason=later.finish_reason,
        stop_sequence=later.stop_sequence,
    )
