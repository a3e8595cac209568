"""Transcript: a recording transcribed window by window, at a bounded size in memory."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.engine_turns import EngineTurns
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.transcription.pauses import speech_bytes
from llm_backend.backends.transcription.recording import Recording
from llm_backend.engine import Engine
from llm_backend.engine.messages import (
    SAMPLES_HZ,
    WINDOW_S,
    TimedWord,
    Transcribe,
    Transcribed,
    TranscriptSegment,
)
from llm_backend.errors import InvalidRequest
from llm_backend.fair_queue import FairSemaphore

_SAMPLE_BYTES = 2
_WINDOW_BYTES = WINDOW_S * SAMPLES_HZ * _SAMPLE_BYTES
_CONTEXT_TOKENS = 224  # tokens of earlier windows; the model takes as many as it can
_LEAST_LOGPROB = -1.0  # mean of a window whose text is a context for the next one


@dataclass(frozen=True, kw_only=True)
class TranscriptRequest:
    """Options of a transcript; fields as of the engine's `Transcribe`."""

    language: str | None = None
    translate: bool = False
    prompt: str = ""
    temperature: float = 0.0
    words: bool = False


@dataclass(frozen=True, kw_only=True)
class TranscriptPart:
    """The segments of one window, in seconds since the recording began. `end_s` is the end of the
    window, `seek_s` its start. `language` is an English name, empty for a silent window."""

    segments: list[TranscriptSegment]
    language: str
    seek_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class TranscriptUsage:
    """Seconds of one recording, for metrics."""

    queue_s: float  # the wait for a permit
    sound_s: float  # transcribed sound
    elapsed_s: float  # transcription, including waits for other recordings


class LocalTranscription:
    """Transcribes recordings by local models. `observe` gets a model's name and the usage of each
    recording, also of one whose client disconnected."""

    def __init__(
        self, permits: FairSemaphore, observe: Callable[[str, TranscriptUsage], None]
    ) -> None:
        self._permits = permits
        self._observe = observe

    async def transcribe(
        self, model: LocalModel, recording: Recording, request: TranscriptRequest, *, caller: str
    ) -> AsyncGenerator[TranscriptPart, None]:
        """Yields the windows of a recording while it is being decoded, and closes its file at the
        end. Callers wait for their permit in turns. Raises `ApiError`."""
        with recording.file:
            async with (
                self._permits.hold(caller) as queue_s,
                aclosing(self._parts(model, recording, request, queue_s)) as parts,
            ):
                async for part in parts:
                    yield part

    async def _parts(
        self, model: LocalModel, recording: Recording, request: TranscriptRequest, queue_s: float
    ) -> AsyncGenerator[TranscriptPart, None]:
        began_s, sound_s = time.monotonic(), 0.0
        try:
            async with recording.decode() as samples:
                windows = _Windows(model, request, has_pauses=recording.speech is not None)
                async with aclosing(windows.transcribe(samples)) as parts:
                    async for part in parts:
                        sound_s = part.end_s
                        yield part
            if windows.is_silent:
                raise InvalidRequest(
                    "The recording holds no speech."
                    if recording.speech is not None
                    else "The recording holds only silence.",
                    param=recording.field,
                    code="audio_silent",
                )
        finally:
            elapsed_s = time.monotonic() - began_s
            usage = TranscriptUsage(queue_s=queue_s, sound_s=sound_s, elapsed_s=elapsed_s)
            self._observe(model.card.id, usage)
            if model.meter is not None:
                model.meter.count_units(math.ceil(sound_s))


class _Windows:
    """State of a recording between two windows. They end where it `has_pauses`: in digital silence
    instead of sound without speech."""

    def __init__(self, model: LocalModel, request: TranscriptRequest, *, has_pauses: bool) -> None:
        self._request = request
        self._has_pauses = has_pauses
        self._buffer = bytearray()
        self._seek_s = 0.0
        self._context: list[int] = []
        self._turns = EngineTurns(model.handle)
        self.is_silent = True

    async def transcribe(
        self, samples: AsyncIterator[bytes]
    ) -> AsyncGenerator[TranscriptPart, None]:
        """Yields the transcripts of the windows."""
        has_ended = False
        while not has_ended or self._buffer:
            while not has_ended and len(self._buffer) <= _WINDOW_BYTES:
                chunk = await anext(samples, b"")
                self._buffer += chunk
                has_ended = not chunk
            if self._buffer:
                is_last = has_ended and len(self._buffer) <= _WINDOW_BYTES
                yield await self._next(is_last=is_last)

    async def _next(self, *, is_last: bool) -> TranscriptPart:
        window = bytes(self._buffer[:_WINDOW_BYTES])
        size = speech_bytes(window, is_last=is_last) if self._has_pauses else None
        answer = await self._answer(window[:size], is_last=is_last or size is not None)
        used_bytes = size or round(answer.end_s * SAMPLES_HZ) * _SAMPLE_BYTES
        seek_s = self._seek_s
        del self._buffer[:used_bytes]
        self._seek_s += used_bytes / _SAMPLE_BYTES / SAMPLES_HZ
        return TranscriptPart(
            segments=[_shift(one, seek_s) for one in answer.segments],
            language=answer.language_name,
            seek_s=seek_s,
            end_s=self._seek_s,
        )

    async def _answer(self, window: bytes, *, is_last: bool) -> Transcribed:
        """Returns the transcript of a window. A silent window gets an empty one without the model,
        which would invent words."""
        if not window.strip(b"\0"):
            length_s = len(window) / _SAMPLE_BYTES / SAMPLES_HZ
            language = self._request.language or ""
            return Transcribed(
                id="", segments=[], language=language, language_name="", end_s=length_s
            )
        self.is_silent = False
        command = self._command(window, is_last=is_last)
        with translate_engine_errors(language="language"):
            answer = await self._turns.take(partial(_transcribe, command))
        self._request = replace(self._request, language=answer.language)
        self._remember(answer)
        return answer

    def _command(self, window: bytes, *, is_last: bool) -> Transcribe:
        request = self._request
        return Transcribe(
            samples=window,
            language=request.language,
            translate=request.translate,
            prompt=request.prompt,
            context=self._context,
            temperature=request.temperature,
            words=request.words,
            is_last=is_last,
            has_begun=self._turns.has_begun,
        )

    def _remember(self, answer: Transcribed) -> None:
        tokens = [token for one in answer.segments for token in one.tokens]
        logprobs = [one.logprob or 0.0 for part in answer.segments for one in part.logprobs]
        is_sure = not logprobs or sum(logprobs) / len(logprobs) >= _LEAST_LOGPROB
        self._context = [*self._context, *tokens][-_CONTEXT_TOKENS:] if is_sure else []


async def _transcribe(command: Transcribe, engine: Engine) -> Transcribed:
    return await engine.transcribe(command)


def _shift(segment: TranscriptSegment, by_s: float) -> TranscriptSegment:
    words = [
        TimedWord(text=one.text, start_s=one.start_s + by_s, end_s=one.end_s + by_s)
        for one in segment.words
    ]
    return msgspec.structs.replace(
        segment, start_s=segment.start_s + by_s, end_s=segment.end_s + by_s, words=words
    )
