"""Voice model: reads a text aloud as a file of sound, piece by piece."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from llm_backend.backends.base import ModelCard
from llm_backend.backends.speech.espeak import (
    GREATEST_RATE,
    LEAST_RATE,
    NOT_INSTALLED,
    WORDS_PER_MINUTE,
    Espeak,
    needs_program,
)
from llm_backend.backends.speech.voices import Voice
from llm_backend.errors import InvalidRequest, Unsupported
from llm_backend.extras import install_command, is_installed
from llm_backend.fair_queue import FairSemaphore

if TYPE_CHECKING:  # FFmpeg's libraries are loaded by the first request
    from llm_backend.backends.speech.sound_encoder import SoundEncoder

BUILTIN_VOICE = "builtin-voice"
"""Name of the model that speaks by `espeak-ng`."""

_ENCODER = "llm_backend.backends.speech.sound_encoder"
_SAMPLE_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Speech:
    """A text to be read aloud. `speed` 1 is the voice's own; `format` is one of OpenAI's names."""

    text: str
    voice: str
    speed: float
    format: str


@dataclass(frozen=True, kw_only=True)
class SpeechUsage:
    """Seconds of waiting for a permit, and of sound that was computed."""

    queue_s: float
    sound_s: float


class VoiceModel:
    """The model `builtin-voice`. `observe` gets its name and the usage of each request."""

    def __init__(
        self, espeak: Espeak, permits: FairSemaphore, observe: Callable[[str, SpeechUsage], None]
    ) -> None:
        self.card = ModelCard(
            id=BUILTIN_VOICE,
            created_at=0,
            owned_by="llm-backend",
            more=(
                ("description", "Reads texts aloud by the program espeak-ng."),
                ("output_modalities", ("audio",)),
            ),
        )
        self._espeak = espeak
        self._permits = permits
        self._observe = observe

    @property
    def is_installed(self) -> bool:
        """True if it can speak: its program and the codecs are installed."""
        return self.missing is None

    @property
    def missing(self) -> str | None:
        """A sentence that names what it lacks to speak; None if it can."""
        if not self._espeak.is_installed:
            return needs_program()
        if not is_installed("audio"):
            return (
                f"`{BUILTIN_VOICE}` needs FFmpeg's libraries, which are not installed: "
                f"{install_command('audio')}."
            )
        return None

    async def voices(self) -> Sequence[Voice]:
        """Returns its voices. Raises `Unsupported` if it cannot speak."""
        self._check_installed()
        return list((await self._espeak.voice_names()).list_voices())

    async def speak(self, speech: Speech, *, caller: str) -> AsyncGenerator[bytes, None]:
        """Yields the bytes of a file while the rest of the text is being read. Callers wait for
        their permit in turns. Raises `ApiError`, before the first bytes if possible."""
        self._check_installed()
        voice = (await self._espeak.voice_names()).find(speech.voice)
        if voice is None:
            raise InvalidRequest(
                f"`{BUILTIN_VOICE}` has no voice `{speech.voice[:100]}`. See GET /v1/audio/voices.",
                param="voice",
            )
        await asyncio.to_thread(import_module, _ENCODER)  # slow at the first request
        async with (
            self._permits.hold(caller) as queue_s,
            aclosing(self._pieces(speech, voice, queue_s)) as pieces,
        ):
            async for piece in pieces:
                yield piece

    def _check_installed(self) -> None:
        if (missing := self.missing) is not None:
            raise Unsupported(missing, param="model", code=NOT_INSTALLED)

    async def _pieces(
        self, speech: Speech, voice: str, queue_s: float
    ) -> AsyncGenerator[bytes, None]:
        words_per_minute = WORDS_PER_MINUTE * speech.speed
        rate = round(min(max(words_per_minute, LEAST_RATE), GREATEST_RATE))
        is_clamped = not LEAST_RATE <= words_per_minute <= GREATEST_RATE
        tempo = words_per_minute / rate if is_clamped else 1.0
        sound_s = 0.0
        try:
            async with self._espeak.speak(speech.text, voice, rate) as samples:
                encoder = await asyncio.to_thread(_encoder, speech.format, samples.rate_hz, tempo)
                async for chunk in samples.chunks:
                    sound_s += len(chunk) / _SAMPLE_BYTES / samples.rate_hz
                    if piece := await asyncio.to_thread(encoder.encode, chunk):
                        yield piece
                yield await asyncio.to_thread(encoder.finish)
        finally:
            self._observe(BUILTIN_VOICE, SpeechUsage(queue_s=queue_s, sound_s=sound_s))


def _encoder(format: str, rate_hz: int, tempo: float) -> "SoundEncoder":
    from llm_backend.backends.speech.sound_encoder import SoundEncoder

    return SoundEncoder(format, rate_hz=rate_hz, tempo=tempo)
