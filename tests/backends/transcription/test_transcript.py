"""A worker that ends while it transcribes a recording."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.transcription import (
    LocalTranscription,
    Recording,
    RecordingLimits,
    TranscriptRequest,
)
from llm_backend.engine import EngineDown
from llm_backend.engine.messages import Transcribe, Transcribed
from llm_backend.errors import EngineUnavailable
from llm_backend.fair_queue import FairSemaphore
from tests.sound_files import wav_file
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


async def transcribe(engine: MortalEngine) -> list[float]:
    """Ends of the windows of a recording of three."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 # closed with the transcript
    file.write(wav_file(70))
    limits = RecordingLimits(bytes=10_000_000, seconds=100)
    card = SimpleNamespace(id="hello")
    parts = LocalTranscription(FairSemaphore(1, depth=0, timeout_s=1), lambda *_: None).transcribe(
        cast(LocalModel, SimpleNamespace(handle=engine, card=card, meter=None)),
        Recording(file=file, field="file", limits=limits),
        TranscriptRequest(),
        caller="",
    )
    return [part.end_s async for part in parts]


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
