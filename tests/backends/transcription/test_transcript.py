"""A worker that ends while it transcribes a recording, of Whisper or a language model."""

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.recordings.recording import Recording, RecordingLimits
from llm_backend.backends.transcription import (
    LocalTranscription,
    TranscriptPart,
    TranscriptRequest,
)
from llm_backend.engine import EngineDown
from llm_backend.engine.messages import Transcribe, Transcribed
from llm_backend.errors import EngineUnavailable
from llm_backend.fair_queue import FairSemaphore
from tests.audio_files import wav_file
from tests.whisper_models import require_transcription


class MortalEngine:
    """An engine whose worker ends in some of its windows; those that are asked for are counted."""

    def __init__(self, deaths: set[int]) -> None:
        self.asked = 0
        self._deaths = deaths

    @asynccontextmanager
    async def use(self) -> AsyncIterator["MortalEngine"]:
        """Yields the engine."""
        yield self

    async def transcribe(self, window: Transcribe) -> Transcribed:
        """Returns a window without segments, or raises the error of a worker that ended."""
        self.asked += 1
        if self.asked in self._deaths:
            raise EngineDown("The engine died and is being restarted.", 1)
        end_s = len(window.samples) / 32_000
        return Transcribed(id="", segments=[], language="de", language_name="german", end_s=end_s)


class MortalListener:
    """A language model that hears, whose worker ends in some of its windows: before a word of
    them, or behind one if it `has_begun`."""

    def __init__(self, deaths: set[int], *, has_begun: bool = False) -> None:
        self.asked = 0
        self.usage = Usage(completion_tokens=1)
        self.recognizer = None
        self.transcribes, self.meter, self.card = False, None, SimpleNamespace(id="ears")
        self._deaths, self._has_begun = deaths, has_begun

    async def info(self) -> SimpleNamespace:
        """Returns what a transcript reads of a model."""
        return SimpleNamespace(architecture="llama", context_tokens=4096)

    async def tokenize(self, text: str, **_: bool) -> list[int]:
        """Returns several tokens for a text."""
        return list(text.encode())

    async def chat(self, _: Chat) -> "MortalListener":
        """Returns the generation of a window."""
        self.asked += 1
        return self

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def chat_deltas(self, _: Chat) -> AsyncGenerator[ChatDelta, None]:
        """Yields a word, or raises the error of a worker that ended."""
        is_dead = self.asked in self._deaths
        if not is_dead or self._has_begun:
            yield ChatDelta(choice=0, content="word")
        if is_dead:
            raise EngineUnavailable("The engine died and is being restarted.")


async def transcribe(engine: MortalEngine) -> list[float]:
    """Ends of the windows of a recording of three."""
    model = SimpleNamespace(
        handle=engine,
        card=SimpleNamespace(id="hello"),
        meter=None,
        transcribes=True,
        recognizer=None,
    )
    return [part.end_s async for part in transcript(cast(LocalModel, model))]


def transcript(model: LocalModel) -> AsyncGenerator[TranscriptPart, None]:
    """The parts of a recording of 70 seconds."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the transcript
    file.write(wav_file(70))
    limits = RecordingLimits(bytes=10_000_000, seconds=100)
    permits, decoding = (FairSemaphore(1, depth=0, timeout_s=1) for _ in range(2))
    return LocalTranscription(permits, lambda *_: None, decoding=decoding).transcribe(
        model,
        Recording(file=file, field="file", limits=limits),
        TranscriptRequest(),
        fairness_key="",
    )


async def test_a_window_of_a_recording_that_has_begun_is_computed_once_more():
    require_transcription()
    engine = MortalEngine({2})

    assert await transcribe(engine) == [30, 60, 70]
    assert engine.asked == 4


@pytest.mark.parametrize(("deaths", "asked"), [({1}, 1), ({2, 3}, 3), ({2, 4}, 4)])
async def test_a_request_that_ends_workers_is_not_computed_again_and_again(deaths, asked):
    """The first window, as its fields may be the reason, not even once."""
    require_transcription()
    engine = MortalEngine(deaths)

    with pytest.raises(EngineUnavailable):
        await transcribe(engine)
    assert engine.asked == asked


async def test_a_window_of_a_language_model_is_computed_once_more_before_its_first_word():
    require_transcription()
    listener = MortalListener({2})

    parts = [part async for part in transcript(cast(LocalModel, listener))]

    assert [one.text for part in parts for one in part.segments] == ["word", " word", " word"]
    assert listener.asked == 4


@pytest.mark.parametrize(("deaths", "has_begun", "asked"), [({1}, False, 1), ({2}, True, 2)])
async def test_streamed_words_are_not_transcribed_again(deaths, has_begun, asked):
    require_transcription()
    listener = MortalListener(deaths, has_begun=has_begun)

    with pytest.raises(EngineUnavailable):
        [part async for part in transcript(cast(LocalModel, listener))]
    assert listener.asked == asked
