"""Local voice: a model that reads a text aloud in its engine, sentence by sentence."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial

from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.request_parts import RequestParts
from llm_backend.backends.speech.espeak import Espeak, missing_program_message
from llm_backend.backends.speech.seams import fade_ends
from llm_backend.backends.speech.sentences import SentenceSplitter, is_spoken, split_beginning
from llm_backend.backends.speech.speech_synthesizer import (
    Samples,
    SpeechRequest,
    SpeechSynthesizer,
    check_installed,
)
from llm_backend.backends.speech.voices import OPENAI_VOICES, Voice
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import Speak, Spoken
from llm_backend.errors import InvalidRequest
from llm_backend.extras import install_command, is_installed
from llm_backend.model_files import GgufVoiceFiles, SpeakingFiles

_SENTENCE_CHARACTERS = 300  # longer sentences are split: they take memory and delay the audio


class LocalVoice:
    """The voice of a local model. `espeak` finds the phonemes of texts, for voices without a
    lexicon; None if the settings have no such program."""

    def __init__(
        self, model: LocalModel, synthesizer: SpeechSynthesizer, espeak: Espeak | None
    ) -> None:
        assert model.voice is not None, "the model speaks"
        self._model = model
        self._files = model.voice
        self._synthesizer = synthesizer
        self._espeak = espeak

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.card.id

    @property
    def takes_samples(self) -> bool:
        """True if the model also speaks in voices cloned from samples."""
        return self._files.takes_samples

    def has_speaker(self, voice: str) -> bool:
        """True if `voice` names a speaker of the model, or is one of OpenAI's names."""
        return self._speaker(voice) is not None

    @property
    def missing(self) -> str | None:
        """A sentence that names what the model needs to speak; None if it lacks nothing."""
        return missing_to_speak(self.name, self._files, self._espeak)

    def language_of(self, speaker: str, requested: str = "") -> str:
        """Returns the language of a speaker. A model of several languages speaks a `requested`
        one."""
        files = self._files
        if not isinstance(files, GgufVoiceFiles) or not files.samples_codes:
            return files.language
        return files.find_language(speaker, requested) or requested or files.language

    async def voices(self) -> Sequence[Voice]:
        """Returns OpenAI's names and the model's speakers. Raises `Unsupported` if `missing`."""
        check_installed(self.missing)
        speakers = self._files.speakers
        named = {one: speakers[_speaker_for(one, self._files)] for one in OPENAI_VOICES}
        others = {id: speaker for id, speaker in named.items() if id not in speakers}
        return [
            Voice(
                id=id,
                name=id if id == speaker else f"{id} ({speaker})",
                language=self.language_of(speaker),
                gender=None,
                file="",
            )
            for id, speaker in {**others, **{one: one for one in speakers}}.items()
        ]

    async def speak(
        self, speech: SpeechRequest, *, fairness_key: str
    ) -> AsyncGenerator[bytes, None]:
        """Yields an audio file in pieces, while the rest of the text is being read. Callers get
        their permits in turn. Raises `ApiError`, before the first piece if possible."""
        check_installed(self.missing)
        speaker = self._speaker(speech.voice)
        if speaker is None and speech.read_sample is None:
            raise InvalidRequest(
                f"`{self.name}` has no voice `{speech.voice[:100]}`. See GET /v1/audio/voices.",
                param="voice",
            )
        audio = self._audio(speech, speaker)
        pieces = self._synthesizer.speak(self.name, speech.format, audio, fairness_key=fairness_key)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    def _speaker(self, voice: str) -> int | None:
        """Returns the number of the speaker for the name of a voice; None if there is none."""
        speaker = self._files.find_speaker(voice)
        if speaker is None and voice in OPENAI_VOICES:
            return _speaker_for(voice, self._files)
        return speaker

    @asynccontextmanager
    async def _audio(self, speech: SpeechRequest, speaker: int | None) -> AsyncIterator[Samples]:
        async with aclosing(self._chunks(speech, speaker)) as chunks:
            tempo = 1.0 if self._files.computes_speed else speech.speed
            yield Samples(rate_hz=self._files.rate_hz, chunks=chunks, tempo=tempo)

    async def _chunks(
        self, speech: SpeechRequest, speaker: int | None
    ) -> AsyncGenerator[bytes, None]:
        """Yields the audio of each sentence; a long first sentence has two parts. Raises
        `ApiError`, also for a text without audio."""
        parts, is_silent = RequestParts(self._model.handle), True
        sample = b"" if speech.read_sample is None else await speech.read_sample()
        for sentence in _spoken_parts(speech.text):
            command = Speak(
                text=sentence,
                speaker=speaker or 0,
                speaker_name=None if speaker is None else self._files.speakers[speaker],
                sample=sample,
                language=speech.language,
                speed=speech.speed,
                phonemes=await self._phonemes(sentence),
                has_begun=parts.has_begun,
            )
            with translate_engine_errors():
                spoken = await parts.take(partial(_speak, command))
            if spoken.samples:
                is_silent = False
                yield fade_ends(spoken.samples, spoken.rate_hz)
        if is_silent:
            raise InvalidRequest(
                f"`{self.name}` knows no word of this text.", param="input", code="text_unspoken"
            )

    async def _phonemes(self, sentence: str) -> str:
        if self._files.phonemizer is None:
            return ""
        assert self._espeak is not None, "`missing` was checked before"
        return await self._espeak.phonemes(sentence, self._files.phonemizer)


def missing_to_speak(model: str, files: SpeakingFiles, espeak: Espeak | None) -> str | None:
    """Returns a sentence that names what a voice needs to speak; None if it lacks nothing."""
    if not is_installed(files.extra):
        command = install_command(files.extra)
        return f"`{model}` needs an extra, which is not installed: {command}."
    if files.phonemizer is None:
        return None
    if espeak is None:
        return (
            f"`{model}` has no lexicon.txt, and the setting `voice_program` names no program that "
            "finds the phonemes of texts."
        )
    return None if espeak.is_installed else missing_program_message(model)


def _spoken_parts(text: str) -> list[str]:
    splitter = SentenceSplitter(_SENTENCE_CHARACTERS)
    spoken = [one for one in (*splitter.feed(text), *splitter.finish()) if is_spoken(one)]
    return [part for first in spoken[:1] for part in split_beginning(first)] + spoken[1:]


async def _speak(command: Speak, engine: EngineClient) -> Spoken:
    return await engine.speak(command)


def _speaker_for(voice: str, files: SpeakingFiles) -> int:
    """Returns the number of the speaker for one of OpenAI's names: the speaker of that name,
    perhaps with a prefix as in Kokoro's `af_alloy`, else one by the name's position in OpenAI's
    list."""
    for number, name in enumerate(files.speakers):
        if name == voice or name.endswith(f"_{voice}"):
            return number
    return list(OPENAI_VOICES).index(voice) % len(files.speakers)
