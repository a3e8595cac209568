"""The model `builtin-voice`: the program `espeak-ng` reads texts aloud."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from llm_backend.backends.base import ModelCard
from llm_backend.backends.speech.espeak import (
    GREATEST_RATE,
    LEAST_RATE,
    WORDS_PER_MINUTE,
    Espeak,
    missing_program_message,
)
from llm_backend.backends.speech.speech_synthesizer import (
    Samples,
    SpeechRequest,
    SpeechSynthesizer,
    check_installed,
)
from llm_backend.backends.speech.voices import Voice
from llm_backend.errors import InvalidRequest
from llm_backend.extras import install_command, is_installed

BUILTIN_VOICE = "builtin-voice"
"""Name of the model that speaks by `espeak-ng`."""


class EspeakModel:
    """The model `builtin-voice`."""

    def __init__(self, espeak: Espeak, synthesizer: SpeechSynthesizer) -> None:
        self.card = ModelCard(
            id=BUILTIN_VOICE,
            created_at=0,
            owned_by="llm-backend",
            more=(
                ("description", "Reads texts aloud by the program espeak-ng."),
                ("output_modalities", ("audio",)),
            ),
        )
        self.espeak = espeak
        self._synthesizer = synthesizer

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.card.id

    @property
    def is_installed(self) -> bool:
        """True if the model can speak: its program and the codecs are installed."""
        return self.missing is None

    @property
    def missing(self) -> str | None:
        """Sentence that names what the model lacks to speak; None if it lacks nothing."""
        if not self.espeak.is_installed:
            return missing_program_message(BUILTIN_VOICE)
        if not is_installed("audio"):
            return (
                f"`{BUILTIN_VOICE}` needs FFmpeg's libraries, which are not installed: "
                f"{install_command('audio')}."
            )
        return None

    async def voices(self) -> Sequence[Voice]:
        """Returns the voices. Raises `Unsupported` if the model cannot speak."""
        check_installed(self.missing)
        return list((await self.espeak.voice_names()).list_voices())

    async def speak(
        self, speech: SpeechRequest, *, fairness_key: str
    ) -> AsyncGenerator[bytes, None]:
        """Yields the bytes of an audio file while the rest of the text is read. Callers wait for
        their permit in turns. Raises `ApiError`, before the first bytes if possible."""
        check_installed(self.missing)
        voice = (await self.espeak.voice_names()).find(speech.voice)
        if voice is None:
            raise InvalidRequest(
                f"`{BUILTIN_VOICE}` has no voice `{speech.voice[:100]}`. See GET /v1/audio/voices.",
                param="voice",
            )
        audio = self._audio(speech, voice)
        pieces = self._synthesizer.speak(
            BUILTIN_VOICE, speech.format, audio, fairness_key=fairness_key
        )
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    @asynccontextmanager
    async def _audio(self, speech: SpeechRequest, voice: str) -> AsyncIterator[Samples]:
        words_per_minute = WORDS_PER_MINUTE * speech.speed
        rate = round(min(max(words_per_minute, LEAST_RATE), GREATEST_RATE))
        is_clamped = not LEAST_RATE <= words_per_minute <= GREATEST_RATE
        tempo = words_per_minute / rate if is_clamped else 1.0
        async with self.espeak.speak(speech.text, voice, rate) as samples:
            yield Samples(rate_hz=samples.rate_hz, chunks=samples.chunks, tempo=tempo)
