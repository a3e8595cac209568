"""Refusal of a command, with its reason; the words for what each kind of model does."""

from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    SAMPLES_HZ,
    ComputedCommand,
    Detokenize,
    Diarize,
    Draw,
    Embed,
    Failure,
    Generate,
    ModelKind,
    Rank,
    ScoreLabels,
    Speak,
    Tokenize,
    Transcribe,
)

_DOES = {
    ModelKind.CHAT: "generates text",
    ModelKind.EMBEDDING: "makes embeddings",
    ModelKind.RERANK: "ranks documents",
    ModelKind.TRANSCRIPTION: "transcribes recordings",
    ModelKind.SPEECH: "reads texts aloud",
    ModelKind.DIARIZATION: "tells speakers apart",
    ModelKind.IMAGES: "draws images",
}
_VERBS = {
    Generate: "generate text",
    ScoreLabels: "decide",
    Embed: "embed",
    Rank: "rank documents",
    Transcribe: "transcribe recordings",
    Speak: "read texts aloud",
    Diarize: "tell speakers apart",
    Draw: "draw images",
    Tokenize: "tokenize texts",
    Detokenize: "detokenize texts",
}


class CommandRefused(Exception):
    """A command is refused: `failure` is the kind of reason, the message says what to do about
    it, and `field` is the invalid field of the command, if there is one."""

    def __init__(self, failure: Failure, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.field = field


def check_queue(waiting: int, limit: int, *, free_slots: int, noun: str = "requests") -> None:
    """Raises `CommandRefused` if a queue is full: more wait than its limit and free slots
    allow."""
    if waiting >= limit + free_slots:
        raise CommandRefused(Failure.QUEUE_FULL, f"{limit} {noun} are waiting already; try later.")


def check_samples(samples: bytes, limit_s: int, *, noun: str) -> None:
    """Raises `CommandRefused` unless these are 1 sample to `limit_s` seconds, of 16 bits each."""
    count, limit = len(samples) / SAMPLE_BYTES, limit_s * SAMPLES_HZ
    if not 1 <= count <= limit or not count.is_integer():
        message = f"A {noun} has 1 to {limit} samples, not {count:g}."
        raise CommandRefused(Failure.INVALID, message, "samples")


def unsupported_command(
    kind: ModelKind, command: ComputedCommand | Tokenize | Detokenize
) -> CommandRefused:
    """Returns the error of a command that a model of this kind does not support."""
    message = f"This model {_DOES[kind]}; it cannot {_VERBS[type(command)]}."
    return CommandRefused(Failure.UNSUPPORTED, message)
