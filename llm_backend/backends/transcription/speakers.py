"""Speakers of a recording, told apart block by block before the block is transcribed."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from string import ascii_uppercase
from typing import Self

from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.request_parts import RequestParts
from llm_backend.backends.recordings.recording import Recording
from llm_backend.backends.transcription.windows import (
    TranscriptPart,
    is_silence,
    length_s,
)
from llm_backend.engine.messages import (
    BLOCK_S,
    REFERENCE_S,
    SAMPLE_BYTES,
    SAMPLES_HZ,
    WINDOW_S,
    Diarize,
    SpeakerTurn,
)
from llm_backend.errors import InvalidRequest
from llm_backend.extras import install_command, is_installed
from llm_backend.model_files import DiarizationFiles, RecognizerFiles

_BLOCK_BYTES = BLOCK_S * SAMPLES_HZ * SAMPLE_BYTES
_CHUNK_BYTES = 256 * 1024
_LEAST_REFERENCE_S = 2


@dataclass(frozen=True, kw_only=True)
class KnownSpeaker:
    """A name, and a sample of the speaker's voice."""

    name: str
    sample: Recording


@dataclass(frozen=True, kw_only=True)
class Diarization:
    """Options of diarization: a model, speakers that are known by name, and the cosine distance
    below which two voices are one speaker's."""

    model: LocalModel
    known: Sequence[KnownSpeaker]
    threshold: float


class Speakers:
    """Speakers of one recording. The speakers of a block are matched by their voices to those of
    the blocks before it, so that a recording of any length takes the memory of one block.
    `references` are samples of the known speakers' voices."""

    def __init__(self, diarization: Diarization, references: list[bytes], *, field: str) -> None:
        self._diarization = diarization
        self._field = field
        self._parts = RequestParts(diarization.model.handle)
        self._references = references
        self._voices: list[list[float]] = []
        self._turns: list[SpeakerTurn] = []  # those that a later window may overlap
        self._seek_s = 0.0
        self._labels = _labels([one.name for one in diarization.known])
        self._names: dict[int | None, str] = {
            at: one.name for at, one in enumerate(diarization.known)
        }

    @classmethod
    async def create(cls, diarization: Diarization, *, field: str) -> Self:
        """Reads the samples of the known speakers. Raises `ApiError`."""
        references = [await _read_reference(one.sample) for one in diarization.known]
        return cls(diarization, references, field=field)

    async def diarize(self, samples: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Yields the samples, each block of them after its speakers are told apart."""
        buffer, has_ended = bytearray(), False
        while not has_ended:
            while not has_ended and len(buffer) < _BLOCK_BYTES:
                chunk = await anext(samples, b"")
                buffer += chunk
                has_ended = not chunk
            block = bytes(buffer[:_BLOCK_BYTES])
            del buffer[:_BLOCK_BYTES]
            has_ended = has_ended and not buffer
            await self._diarize_block(block)
            for start in range(0, len(block), _CHUNK_BYTES):
                yield block[start : start + _CHUNK_BYTES]

    def name(self, part: TranscriptPart) -> TranscriptPart:
        """Returns a part of the transcript with the speaker of each segment: the one that speaks
        for most of its time, else the nearest one. Parts come in order, none of them before its
        block."""
        speakers = [self._name(self._speaker(one.start_s, one.end_s)) for one in part.segments]
        return replace(part, speakers=speakers)

    async def _diarize_block(self, block: bytes) -> None:
        begin_s = self._seek_s
        self._seek_s += length_s(len(block))
        self._turns = [one for one in self._turns if one.end_s > begin_s - WINDOW_S]
        if is_silence(block):
            return
        command = Diarize(
            samples=block,
            voices=self._voices,
            references=self._references,
            threshold=self._diarization.threshold,
            has_begun=self._parts.has_begun,
        )
        with translate_engine_errors(samples=self._field, voices="response_format"):
            answer = await self._parts.take(lambda engine: engine.diarize(command))
        self._references, self._voices = [], answer.voices
        self._turns += [
            SpeakerTurn(
                start_s=begin_s + one.start_s, end_s=begin_s + one.end_s, speaker=one.speaker
            )
            for one in answer.turns
        ]

    def _speaker(self, start_s: float, end_s: float) -> int | None:
        """Returns the number of a segment's speaker; None if no speaker was heard near it."""
        heard_s: dict[int, float] = {}
        for turn in self._turns:
            overlap_s = min(end_s, turn.end_s) - max(start_s, turn.start_s)
            if overlap_s > 0:
                heard_s[turn.speaker] = heard_s.get(turn.speaker, 0.0) + overlap_s
        if heard_s:
            return max(heard_s, key=heard_s.__getitem__)
        gaps = [
            (max(turn.start_s - end_s, start_s - turn.end_s), turn.speaker) for turn in self._turns
        ]
        return min(gaps)[1] if gaps else None

    def _name(self, speaker: int | None) -> str:
        """Returns the name of a speaker: a known one, else a letter by the order in the
        transcript. A segment near which no speaker was heard gets a letter as well."""
        if speaker not in self._names:
            self._names[speaker] = next(self._labels)
        return self._names[speaker]


def missing_extra(model: str, files: DiarizationFiles | RecognizerFiles) -> str | None:
    """Returns a sentence that names the extra that a model lacks; None if it is installed."""
    if is_installed(files.extra):
        return None
    return f"`{model}` needs an extra, which is not installed: {install_command(files.extra)}."


def _labels(taken: Sequence[str]) -> Iterator[str]:
    """Yields A to Z, AA and so on, without those that are taken."""
    for size in count(1):
        for letters in product(ascii_uppercase, repeat=size):
            if (label := "".join(letters)) not in taken:
                yield label


async def _read_reference(sample: Recording) -> bytes:
    """Returns the samples of a known speaker. Raises `InvalidRequest` if they are too few."""
    limit_bytes = REFERENCE_S * SAMPLES_HZ * SAMPLE_BYTES
    async with sample.decode() as chunks:
        samples = b"".join([chunk async for chunk in chunks])
    if length_s(len(samples)) < _LEAST_REFERENCE_S or is_silence(samples):
        raise InvalidRequest(
            f"A sample of a speaker must have {_LEAST_REFERENCE_S} to {REFERENCE_S} s of speech.",
            param=sample.field,
        )
    return samples[:limit_bytes]
