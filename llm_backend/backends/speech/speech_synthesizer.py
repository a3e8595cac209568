"""Speech synthesizer: the audio of a voice as a file, in pieces, within the voices' permits."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from llm_backend.engine.messages import SAMPLE_BYTES
from llm_backend.errors import Unsupported
from llm_backend.fair_queue import FairSemaphore

if TYPE_CHECKING:  # FFmpeg's libraries are loaded by the first request
    from llm_backend.backends.speech.audio_encoder import AudioEncoder

NOT_INSTALLED = "voice_not_installed"
"""Code of the error for a missing program or library."""

_ENCODER = "llm_backend.backends.speech.audio_encoder"


@dataclass(frozen=True, kw_only=True)
class SpeechRequest:
    """A text to be read aloud. `speed` 1 is the voice's own; `format` is one of OpenAI's names. If
    `voice` is a cloned voice, `read_sample` returns its sample and `language` is the sample's."""

    text: str
    voice: str
    speed: float
    format: str
    read_sample: Callable[[], Awaitable[bytes]] | None = None
    language: str = ""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Audio as signed 16-bit samples of one channel. `tempo` is the factor by which the encoder
    still has to change the speed."""

    rate_hz: int
    chunks: AsyncGenerator[bytes, None]
    tempo: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SpeechUsage:
    """Seconds of waiting for a permit, and of audio that was computed."""

    queue_s: float
    audio_s: float


class SpeechSynthesizer:
    """Reads texts aloud by voices. `observe` gets a model's name and the usage of each request that
    got a permit, even if its client has disconnected."""

    def __init__(self, permits: FairSemaphore, observe: Callable[[str, SpeechUsage], None]) -> None:
        self._permits = permits
        self._observe = observe

    async def speak(
        self,
        model: str,
        format: str,
        audio: AbstractAsyncContextManager[Samples],
        *,
        fairness_key: str,
    ) -> AsyncGenerator[bytes, None]:
        """Yields the bytes of a file while the rest of its `audio` is computed. Callers wait for
        their permit in turns, before the audio is opened. Raises `ApiError`."""
        await asyncio.to_thread(import_module, _ENCODER)  # slow at the first request
        async with (
            self._permits.hold(fairness_key) as queue_s,
            aclosing(self._pieces(model, format, audio, queue_s)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def _pieces(
        self,
        model: str,
        format: str,
        audio: AbstractAsyncContextManager[Samples],
        queue_s: float,
    ) -> AsyncGenerator[bytes, None]:
        audio_s = 0.0
        try:
            async with audio as samples:
                encoder = await asyncio.to_thread(_encoder, format, samples.rate_hz, samples.tempo)
                async for chunk in samples.chunks:
                    audio_s += len(chunk) / SAMPLE_BYTES / samples.rate_hz
                    if piece := await asyncio.to_thread(encoder.encode, chunk):
                        yield piece
                yield await asyncio.to_thread(encoder.finish)
        finally:
            self._observe(model, SpeechUsage(queue_s=queue_s, audio_s=audio_s))


def check_installed(missing: str | None) -> None:
    """Raises `Unsupported` with the sentence `missing`, which names a program or library that a
    voice lacks; None if it lacks none."""
    if missing is not None:
        raise Unsupported(missing, param="model", code=NOT_INSTALLED)


def _encoder(format: str, rate_hz: int, tempo: float) -> "AudioEncoder":
    from llm_backend.backends.speech.audio_encoder import AudioEncoder

    return AudioEncoder(format, rate_hz=rate_hz, tempo=tempo)
