"""Local voice: the order of sentences and audio, with an engine that waits for the test."""

import asyncio
import itertools
import math
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from llm_backend.backends.speech import LocalVoice, SpeechRequest, SpeechSynthesizer
from llm_backend.engine.messages import Speak, Spoken
from llm_backend.fair_queue import FairSemaphore

RATE_HZ = 24_000
TONE_HZ = 440
AMPLITUDE = 10_000
LONG = (
    "Ten seconds of speech are about as many characters as this sentence has and it reaches its "
    "only sign, which is the last one, after a hundred and fifty characters."
)


class GatedVoice:
    """A model with a voice, and its engine: a part of a text is computed when `gate` is released.
    Each part is a tone, of a fixed number of samples a character, which ends mid-wave."""

    phonemizer = None
    extra = "voices"
    takes_samples = False
    computes_speed = True
    language = "en"
    speakers = ("low",)
    rate_hz = RATE_HZ

    def __init__(self, gate: asyncio.Semaphore, samples_a_character: int = 100) -> None:
        self.gate = gate
        self.spoken: list[str] = []
        self._samples = samples_a_character

    card = voice = handle = property(lambda self: self)
    id = "tones"

    def find_speaker(self, voice: str) -> int | None:
        return 0 if voice == "low" else None

    @asynccontextmanager
    async def use(self) -> AsyncIterator["GatedVoice"]:
        yield self

    async def speak(self, command: Speak) -> Spoken:
        await self.gate.acquire()
        self.spoken.append(command.text)
        count = self._samples * len(command.text) + 13
        return Spoken(id="", samples=little_endian(tone(count)), rate_hz=RATE_HZ)


def tone(count: int) -> "array[int]":
    turn = 2 * math.pi * TONE_HZ / RATE_HZ
    return array("h", [round(AMPLITUDE * math.cos(turn * at)) for at in range(count)])


def little_endian(samples: "array[int]") -> bytes:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def audio_of(model: Any, text: str) -> AsyncGenerator[bytes, None]:
    synthesizer = SpeechSynthesizer(FairSemaphore(1, depth=1, timeout_s=60), lambda *_: None)
    voice = LocalVoice(model, synthesizer, espeak=None)
    speech = SpeechRequest(text=text, voice="low", speed=1.0, format="pcm")
    return voice.speak(speech, fairness_key="")


async def test_the_first_bytes_come_before_half_of_one_sentence_is_computed():
    gate = asyncio.Semaphore(1)  # of the first part only
    model = GatedVoice(gate)
    async with aclosing(audio_of(model, LONG)) as pieces, asyncio.timeout(60):
        first = await anext(pieces)
        computed = len("".join(model.spoken))
        gate.release()
        gate.release()
        rest = [piece async for piece in pieces]

    assert first
    assert computed < len(LONG) / 2
    assert b"".join(rest)
    assert "".join(model.spoken) == LONG
    assert len(model.spoken) == 2


@pytest.mark.parametrize("text", [LONG, "One two three. " * 3])
async def test_parts_join_without_clicks(text):
    model = GatedVoice(asyncio.Semaphore(10))
    async with aclosing(audio_of(model, text)) as pieces:
        samples = array("h", b"".join([piece async for piece in pieces]))

    assert len(model.spoken) > 1
    # A tone's own largest step is 10,000 * 2 pi * 440 / 24,000 = 1,152.
    assert max(abs(b - a) for a, b in itertools.pairwise([0, *samples, 0])) < 1_300
    assert max(samples) >= AMPLITUDE * 0.99


async def test_parts_that_end_at_zero_are_not_changed():
    class Quiet(GatedVoice):
        async def speak(self, command: Speak) -> Spoken:
            wave = array("h", [0, *tone(500), 0])
            return Spoken(id="", samples=little_endian(wave), rate_hz=RATE_HZ)

    async with aclosing(audio_of(Quiet(asyncio.Semaphore(1)), "One two three.")) as pieces:
        samples = array("h", b"".join([piece async for piece in pieces]))

    assert list(samples) == [0, *tone(500), 0]
