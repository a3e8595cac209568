"""An ONNX voice in a worker: the audio of sentences, beside the library's own."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig, EngineStartError
from llm_backend.engine.messages import Failure, ModelKind, Speak
from tests.tone_voice import RATE_HZ, TONES, heard, require_voices, write_voice

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "One two, three four!"


@pytest.fixture(scope="module", autouse=True)
def needs_extra() -> None:
    require_voices()


def config(path: Path) -> EngineConfig:
    return EngineConfig(model_path=path, kind=ModelKind.SPEECH, threads=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_voice(tmp_path_factory.mktemp("voices") / "tones")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(path) -> AsyncIterator[EngineClient]:
    async with EngineClient(config(path)) as one:
        await one.ready()
        yield one


async def test_a_sentence_has_the_samples_of_the_library(engine, path):
    import sherpa_onnx

    vits = sherpa_onnx.OfflineTtsVitsModelConfig(
        model=str(path),
        lexicon=str(path.with_name("lexicon.txt")),
        tokens=str(path.with_name("tokens.txt")),
    )
    model = sherpa_onnx.OfflineTtsModelConfig(vits=vits)
    library = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=model))
    theirs = np.asarray(library.generate(TEXT, sid=1, speed=1.0).samples)
    answer = await engine.speak(Speak(text=TEXT, speaker=1))
    ours = np.frombuffer(answer.samples, "<i2") / 32767

    assert answer.rate_hz == RATE_HZ
    assert np.abs(ours - theirs).max() < 1 / 32767
    assert heard(answer.samples, RATE_HZ)[0] == list(TONES)


async def test_speakers_and_speed_change_the_audio(engine):
    first = heard((await engine.speak(Speak(text="one two"))).samples, RATE_HZ)
    second = heard((await engine.speak(Speak(text="one two", speaker=1))).samples, RATE_HZ)
    slow = heard((await engine.speak(Speak(text="one two.", speed=0.5))).samples, RATE_HZ)

    assert first == (["one", "two"], pytest.approx(0.5, rel=0.1))
    assert second == (["one", "two"], pytest.approx(0.125, rel=0.1))
    assert slow[0] == ["one", "two", "one", "two"]


@pytest.mark.parametrize("family", ["kokoro", "matcha-tts"])
async def test_voices_of_other_families_have_the_samples_of_the_library(tmp_path, family):
    import sherpa_onnx

    path = write_voice(tmp_path / "tones", family=family)
    files = {
        "tokens": str(path.with_name("tokens.txt")), "lexicon": str(path.with_name("lexicon.txt")),
    }  # fmt: skip
    if family == "kokoro":
        styles = str(path.with_name("voices.bin"))
        own = sherpa_onnx.OfflineTtsKokoroModelConfig(model=str(path), voices=styles, **files)
        model = sherpa_onnx.OfflineTtsModelConfig(kokoro=own)
    else:
        vocoder = str(path.with_name("vocoder.onnx"))
        own = sherpa_onnx.OfflineTtsMatchaModelConfig(
            acoustic_model=str(path), vocoder=vocoder, **files
        )
        model = sherpa_onnx.OfflineTtsModelConfig(matcha=own)
    library = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=model))
    async with EngineClient(config(path)) as engine:
        await engine.ready()
        for speaker, speed in ((0, 1.0), (1, 1.0), (1, 0.5)):
            theirs = np.asarray(library.generate(TEXT, sid=speaker, speed=speed).samples)
            answer = await engine.speak(Speak(text=TEXT, speaker=speaker, speed=speed))
            ours = np.frombuffer(answer.samples, "<i2") / 32767
            words, loudness = heard(answer.samples, RATE_HZ)

            assert np.abs(ours - theirs).max() < 1 / 32767
            assert words == list(TONES) * round(1 / speed)
            assert loudness == pytest.approx((0.5, 0.125)[speaker], rel=0.1)


@pytest.mark.parametrize("family", ["kokoro", "matcha-tts"])
async def test_voices_of_other_families_read_phonemes(tmp_path, family):
    path = write_voice(tmp_path / "tones", family=family, has_lexicon=False)
    async with EngineClient(config(path)) as engine:
        await engine.ready()
        answer = await engine.speak(Speak(text="anything", phonemes="a b, d."))
        long = await engine.speak(Speak(text="anything", phonemes="a b " * 200))

    assert heard(answer.samples, RATE_HZ)[0] == ["one", "two", "four"]
    assert heard(long.samples, RATE_HZ)[0] == ["one", "two"] * 200


async def test_unknown_words_have_no_audio(engine):
    assert (await engine.speak(Speak(text="zebra"))).samples == b""


async def test_unsupported_commands_to_a_voice_are_refused(engine):
    with pytest.raises(CommandFailed, match="no speaker 2") as refused:
        await engine.speak(Speak(text="one", speaker=2))
    with pytest.raises(CommandFailed, match="reads texts aloud; it cannot embed"):
        await engine.embed(["one"])
    with pytest.raises(CommandFailed, match="reads texts aloud; it cannot tokenize"):
        await engine.tokenize("one")

    assert (refused.value.failure, refused.value.field) == (Failure.INVALID, "voice")


async def test_a_voice_without_a_lexicon_reads_phonemes(tmp_path):
    path = write_voice(tmp_path / "tones", has_lexicon=False)
    async with EngineClient(config(path)) as engine:
        await engine.ready()
        answer = await engine.speak(Speak(text="anything", phonemes="ab, d."))

    assert heard(answer.samples, RATE_HZ)[0] == ["one", "two", "four"]


async def test_a_model_that_cannot_be_computed_is_not_loaded_and_the_reason_is_named(tmp_path):
    path = write_voice(tmp_path / "tones")
    path.write_bytes(path.read_bytes().replace(b"Gather", b"Gothic"))
    async with EngineClient(config(path)) as engine:
        with pytest.raises(EngineStartError, match="Gothic"):
            await engine.ready()
