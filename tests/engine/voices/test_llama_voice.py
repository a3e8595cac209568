"""A voice of llama.cpp in a worker: the audio of sentences, beside the library's own."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig, EngineStartError
from llm_backend.engine.messages import Failure, ModelKind, Speak, Spoken
from llm_backend.model_files import HeaderError, read_gguf_voice
from tests.engine.gguf_models import write_llama
from tests.engine.pocket_voice import FRAME_SAMPLES, RATE_HZ, write_pocket_voice
from tests.engine.speech_reference import reference_audio
from tests.media_files import wav

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "Hello world."


def config(model: Path, projector: Path) -> EngineConfig:
    return EngineConfig(
        model_path=model, projector_path=projector, kind=ModelKind.SPEECH, threads=1
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    found = write_pocket_voice(tmp_path_factory.mktemp("voice"))
    samples = found[0].parent / "voices"
    samples.mkdir()
    (samples / "high.wav").write_bytes(wav(2, pitch=0.5, rate=RATE_HZ))
    (samples / "low.wav").write_bytes(wav(2, pitch=0.05, rate=RATE_HZ))
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(files) -> AsyncIterator[EngineClient]:
    async with EngineClient(config(*files)) as one:
        await one.ready()
        yield one


def pcm(spoken: Spoken) -> NDArray[np.float64]:
    return np.frombuffer(spoken.samples, "<i2") / 32767


async def test_a_sentence_has_the_samples_of_the_library(engine, files):
    answer = await engine.speak(Speak(text=TEXT, speaker=1))
    ours = pcm(answer)
    seed = zlib.crc32(TEXT.encode()) & 0x7FFFFFFF
    low = files[0].parent / "voices" / "low.wav"
    theirs = reference_audio(*files, TEXT, seed=seed, sample=low)

    assert (answer.rate_hz, len(ours)) == (RATE_HZ, 3 * FRAME_SAMPLES)
    assert np.abs(ours - theirs).max() < 1 / 32767
    assert ours.std() > 0.01


async def test_the_sample_of_a_speaker_changes_the_audio_and_a_text_sounds_the_same(engine):
    async def audio(text: str, speaker: int) -> bytes:
        return (await engine.speak(Speak(text=text, speaker=speaker))).samples

    first, other = await audio(TEXT, 0), await audio("Good day.", 0)
    second, third = await audio(TEXT, 1), await audio("Good day.", 1)

    assert len({first, other, second, third}) == 4
    assert await audio(TEXT, 0) == first


async def test_a_speaker_that_is_not_there_is_refused(engine):
    with pytest.raises(CommandFailed) as refused:
        await engine.speak(Speak(text=TEXT, speaker=2))

    assert refused.value.failure is Failure.INVALID
    assert (await engine.ready()).description == "Pocket TTS voice, english, 2 speakers"


async def test_a_speaker_is_the_one_of_its_name_whatever_files_have_come(engine):
    by_number = await engine.speak(Speak(text=TEXT, speaker=1))
    by_name = await engine.speak(Speak(text=TEXT, speaker=0, speaker_name="low"))
    with pytest.raises(CommandFailed, match="no speaker gone"):
        await engine.speak(Speak(text=TEXT, speaker=0, speaker_name="gone"))

    assert by_name.samples == by_number.samples


async def test_a_sample_that_comes_with_a_sentence_sounds_as_its_file(engine, files):
    file = (files[0].parent / "voices" / "low.wav").read_bytes()
    sample = file[44:]  # after the header
    other, by_file = [await engine.speak(Speak(text=TEXT, speaker=one)) for one in (0, 1)]
    by_sample = await engine.speak(Speak(text=TEXT, sample=sample))
    with pytest.raises(CommandFailed, match=r"lasts 0\.5 s; it may last 1 to 30 s"):
        await engine.speak(Speak(text=TEXT, sample=sample[:RATE_HZ]))

    from_file, from_other = (np.abs(pcm(by_sample) - pcm(one)).max() for one in (by_file, other))
    assert from_file < 0.05  # processors round differently
    assert from_other > 0.1


async def test_samples_are_files_with_names_of_their_own(tmp_path):
    files = write_pocket_voice(tmp_path)
    samples = tmp_path / "voices"
    (samples / "folder.wav").mkdir(parents=True)
    (samples / "broken.wav").symlink_to(tmp_path / "nothing")
    (samples / "anna.wav").write_bytes(b"RIFF")

    assert read_gguf_voice(*files).speakers == ("anna",)
    (samples / "anna.mp3").write_bytes(b"ID3")
    with pytest.raises(HeaderError, match=r"anna\.mp3 and .*anna\.wav name the same speaker"):
        read_gguf_voice(*files)


async def test_a_long_sentence_stops_between_its_frames(tmp_path):
    files = write_pocket_voice(tmp_path, ends=False)
    async with EngineClient(config(*files)) as engine:
        await engine.ready()
        whole = await engine.speak(Speak(text="Hi."))
        task = asyncio.create_task(engine.speak(Speak(text="word " * 60)))
        next_one = asyncio.create_task(engine.speak(Speak(text="Hi.", has_begun=True)))
        await asyncio.sleep(0)
        task.cancel()
        after = await next_one

    assert len(whole.samples) == len(after.samples) > 10 * FRAME_SAMPLES


async def test_files_that_are_no_voice_are_refused_with_their_reason(tmp_path):
    model, projector = write_pocket_voice(tmp_path)
    other = write_llama(tmp_path / "other.gguf")
    samples = tmp_path / "voices"
    samples.mkdir()

    async def reason(model: Path, projector: Path) -> str:
        with pytest.raises(EngineStartError) as failed:
            async with EngineClient(config(model, projector)) as engine:
                await engine.ready()
        return str(failed.value)

    assert "is not a projector for" in await reason(other, projector)
    (samples / "long.wav").write_bytes(wav(31, rate=8000))
    assert "lasts 31.0 s" in await reason(model, projector)
