"""Transcription of recordings by local models: permits, decoding and usage."""

import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.recordings.recording import Recording
from llm_backend.backends.transcription.chat_windows import ChatWindows
from llm_backend.backends.transcription.speakers import Diarization, Speakers
from llm_backend.backends.transcription.whisper_windows import RecognizerWindows, WhisperWindows
from llm_backend.backends.transcription.windows import TranscriptPart, TranscriptRequest, Windows
from llm_backend.engine.messages import WINDOW_S
from llm_backend.errors import InvalidRequest
from llm_backend.fair_queue import FairSemaphore


@dataclass(frozen=True, kw_only=True)
class TranscriptUsage:
    """Seconds of one recording, for metrics."""

    queue_s: float  # the wait for a permit
    audio_s: float  # transcribed audio
    elapsed_s: float  # transcription, including waits for other recordings


class LocalTranscription:
    """Transcribes recordings by local models: Whisper and NeMo models, and language models that
    hear, whose windows have at most `heard_s` seconds. Recordings that are only decoded wait for
    permits of `decoding`, not for transcripts. `observe` gets a model's name and the usage of each
    recording that got its permit, also if its client disconnected."""

    def __init__(
        self,
        permits: FairSemaphore,
        observe: Callable[[str, TranscriptUsage], None],
        *,
        decoding: FairSemaphore,
        heard_s: float = WINDOW_S,
    ) -> None:
        self._permits = permits
        self._decoding = decoding
        self._observe = observe
        self._heard_s = min(heard_s, WINDOW_S)

    async def transcribe(
        self,
        model: LocalModel,
        recording: Recording,
        request: TranscriptRequest,
        *,
        fairness_key: str,
        diarization: Diarization | None = None,
    ) -> AsyncGenerator[TranscriptPart, None]:
        """Yields the transcripts of windows while the recording is decoded. A window of a language
        model has several parts. With a `diarization` the parts have speakers. All files are closed
        at the end. Callers wait for their permit in turns. Raises `ApiError`."""
        known = diarization.known if diarization else ()
        with ExitStack() as files:
            for one in (recording, *(speaker.sample for speaker in known)):
                files.enter_context(one.file)
            async with (
                self._permits.hold(fairness_key) as queue_s,
                aclosing(self._parts(model, recording, request, diarization, queue_s)) as parts,
            ):
                async for part in parts:
                    yield part

    async def decode(self, recording: Recording, *, fairness_key: str) -> bytes:
        """Returns all samples of a short recording. Callers wait for their permit in turns. Raises
        `ApiError`, also for silence."""
        async with self._decoding.hold(fairness_key), recording.decode() as chunks:
            samples = b"".join([chunk async for chunk in chunks])
        if not samples.strip(b"\0"):
            raise InvalidRequest(
                "The recording holds only silence.", param=recording.field, code="audio_silent"
            )
        return samples

    async def _parts(
        self,
        model: LocalModel,
        recording: Recording,
        request: TranscriptRequest,
        diarization: Diarization | None,
        queue_s: float,
    ) -> AsyncGenerator[TranscriptPart, None]:
        began_s, audio_s = time.monotonic(), 0.0
        try:
            windows = await self._windows(model, recording, request)
            speakers = diarization and await Speakers.create(diarization, field=recording.field)
            async with (
                recording.decode() as decoded,
                aclosing(speakers.diarize(decoded) if speakers else decoded) as samples,
                aclosing(windows.transcribe(samples)) as parts,
            ):
                async for part in parts:
                    audio_s = part.end_s
                    yield speakers.name(part) if speakers else part
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
            usage = TranscriptUsage(queue_s=queue_s, audio_s=audio_s, elapsed_s=elapsed_s)
            self._observe(model.card.id, usage)
            if model.meter is not None:
                model.meter.count_units(math.ceil(audio_s))

    async def _windows(
        self, model: LocalModel, recording: Recording, request: TranscriptRequest
    ) -> Windows:
        has_pauses = recording.speech is not None
        if model.recognizer is not None:
            return RecognizerWindows(model, request, has_pauses=has_pauses)
        if model.transcribes:
            return WhisperWindows(model, request, has_pauses=has_pauses)
        return await ChatWindows.create(
            model,
            request,
            window_s=self._heard_s,
            has_pauses=has_pauses,
            field=recording.field,
        )
