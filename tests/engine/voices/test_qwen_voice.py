"""A voice of llama.cpp that draws codes, in a worker: its audio, beside the library's own, and its
languages."""

import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig
from llm_backend.engine.llama import capture_log
from llm_backend.engine.llama.voice import LlamaVoiceModel
from llm_backend.engine.messages import Failure, ModelKind, Speak, Spoken
from llm_backend.model_files import read_gguf_voice
from tests.engine.qwen_voice import FRAME_SAMPLES, RATE_HZ, write_qwen_voice
from tests.engine.speech_reference import reference_audio
from tests.media_files import wav

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "Hello world."
FRAMES = 25 + 6 * len(TEXT)  # random weights seldom draw the end


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    found = write_qwen_voice(tmp_path_factory.mktemp("voice"))
    samples = found[0].parent / "voices"
    samples.mkdir()
    for name, pitch in (("high", 0.5), ("low", 0.05), ("low.de", 0.05), ("low.xx", 0.05)):
        (samples / f"{name}.wav").write_bytes(wav(2, pitch=pitch, rate=RATE_HZ))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(files) -> AsyncIterator[EngineClient]:
    model, projector = files
    config = EngineConfig(
        model_path=model, projector_path=projector, kind=ModelKind.SPEECH, threads=1
    )
    async with EngineClient(config) as one:
        await one.ready()
        yield one


async def test_a_sentence_has_the_samples_of_the_library(engine, files):
    answer = await engine.speak(Speak(text=TEXT, speaker_name="low"))
    ours = np.frombuffer(answer.samples, "<i2") / 32767
    seed = zlib.crc32(TEXT.encode()) & 0x7FFFFFFF
    low = files[0].parent / "voices" / "low.wav"
    theirs = reference_audio(*files, TEXT, seed=seed, sample=low)

    assert (answer.rate_hz, len(ours)) == (RATE_HZ, len(theirs))
    assert len(theirs) == FRAMES * FRAME_SAMPLES
    assert np.abs(ours - theirs).max() < 1 / 32767
    assert ours.std() > 0.01


async def test_text_sample_and_language_change_the_audio(engine):
    async def audio(text: str, speaker: str, language: str = "") -> bytes:
        command = Speak(text=text, speaker_name=speaker, language=language)
        return (await engine.speak(command)).samples

    first = await audio(TEXT, "high")
    others = [await audio(TEXT, "low"), await audio("Good day.", "high")]
    german = await audio(TEXT, "low.de")

    assert len({first, german, *others}) == 4
    assert german == await audio(TEXT, "low", "de-AT") == await audio(TEXT, "low", "German")
    assert others[0] == await audio(TEXT, "low.de", "en")
    assert others[0] == await audio(TEXT, "low.xx")
    assert await audio(TEXT, "high") == first


async def test_a_language_that_it_does_not_speak_is_refused(engine):
    with pytest.raises(CommandFailed, match="does not speak `sv`, but english, german") as refused:
        await engine.speak(Speak(text=TEXT, language="sv"))

    assert refused.value.failure is Failure.INVALID


async def test_a_sample_that_comes_with_a_sentence_sounds_as_its_file(engine, files):
    sample = (files[0].parent / "voices" / "low.wav").read_bytes()[44:]  # after the header
    by_file = await engine.speak(Speak(text=TEXT, speaker_name="low"))
    by_sample = await engine.speak(Speak(text=TEXT, sample=sample))

    other = await engine.speak(Speak(text=TEXT, speaker_name="high"))

    def distance(one: Spoken, two: Spoken) -> float:
        first, second = (np.frombuffer(each.samples, "<i2") / 32767 for each in (one, two))
        return float(np.abs(first - second).max())

    assert distance(by_sample, by_file) < distance(by_sample, other) / 4


async def test_its_memory_holds_the_embeddings_twice(files):
    voice = read_gguf_voice(*files)

    assert (voice.family, voice.language, voice.samples_codes) == (
        "Qwen3-TTS", "several languages", True,
    )  # fmt: skip
    assert voice.table_bytes == 3174 * 32 * 4


async def test_an_ending_that_is_no_language_is_logged_when_the_model_is_loaded(files, caplog):
    model, projector = files
    config = EngineConfig(
        model_path=model, projector_path=projector, kind=ModelKind.SPEECH, threads=1
    )
    LlamaVoiceModel(config.start_command(deaths=0, listening_fd=None), capture_log())
    found = read_gguf_voice(*files)

    (warned,) = [one for one in caplog.records if one.message == "voice_language_unknown"]
    assert {"speaker": "low.xx", "ending": "xx", "spoken": "en"}.items() <= vars(warned).items()
    assert found.unknown_languages == {"low.xx": "xx"}
    assert found.languages == {
        "english": "english", "en": "english", "german": "german", "de": "german",
    }  # fmt: skip
