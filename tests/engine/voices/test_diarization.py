"""A model of speakers in a worker: turns in a block, beside the library's own; voices of blocks."""

import io
import wave
from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig, EngineStartError
from llm_backend.engine.messages import Diarize, Diarized, Failure, ModelKind
from llm_backend.engine.sequential_engine import Cancelled
from llm_backend.engine.voices.diarization import DiarizationModel
from tests.tone_speakers import RATE_HZ, Tone, tones_file, write_speakers
from tests.tone_voice import require_voices

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANN, BOB, EVE = 400, 1600, 3000
TALK: Sequence[Tone] = ((ANN, 2), (0, 1), (BOB, 2), (ANN, 2), (EVE, 1.5))


@pytest.fixture(scope="module", autouse=True)
def needs_extra() -> None:
    require_voices()


def samples(tones: Sequence[Tone]) -> bytes:
    with wave.open(io.BytesIO(tones_file(tones))) as file:
        return file.readframes(file.getnframes())


def config(path: Path) -> EngineConfig:
    return EngineConfig(model_path=path, kind=ModelKind.DIARIZATION, threads=1)


def turns(answer: Diarized) -> list[tuple[float, float, int]]:
    return [(round(one.start_s, 1), round(one.end_s, 1), one.speaker) for one in answer.turns]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_speakers(tmp_path_factory.mktemp("speakers") / "tones")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(path) -> AsyncIterator[EngineClient]:
    async with EngineClient(config(path)) as one:
        await one.ready()
        yield one


async def test_turns_are_those_of_the_library(engine, path):
    import sherpa_onnx

    model = sherpa_onnx.OfflineSpeakerSegmentationPyannoteModelConfig(model=str(path))
    library = sherpa_onnx.OfflineSpeakerDiarization(
        sherpa_onnx.OfflineSpeakerDiarizationConfig(
            segmentation=sherpa_onnx.OfflineSpeakerSegmentationModelConfig(pyannote=model),
            embedding=sherpa_onnx.SpeakerEmbeddingExtractorConfig(
                model=str(path.with_name("embedding.onnx"))
            ),
            clustering=sherpa_onnx.FastClusteringConfig(threshold=0.5),
        )
    )
    theirs = library.process(np.frombuffer(samples(TALK), "<i2") / np.float32(32768))
    numbers: dict[int, int] = {}
    expected = [
        (one.start, one.end, numbers.setdefault(one.speaker, len(numbers)))
        for one in theirs.sort_by_start_time()
    ]
    answer = await engine.diarize(Diarize(samples=samples(TALK)))

    ours = [(one.start_s, one.end_s, one.speaker) for one in answer.turns]
    assert ours == [pytest.approx(one, abs=0.01) for one in expected]  # cut at the block's end
    assert turns(answer) == [(0, 2, 0), (3, 5.4, 1), (5.4, 7, 0), (7, 8.5, 2)]
    assert [round(np.linalg.norm(one), 1) for one in answer.voices] == [3.6, 2.4, 1.5]


async def test_speakers_of_earlier_blocks_and_references_are_known(engine):
    first = await engine.diarize(Diarize(samples=samples([(BOB, 2), (ANN, 2)])))
    known = await engine.diarize(
        Diarize(samples=samples(TALK), voices=first.voices, has_begun=True)
    )
    referred = await engine.diarize(
        Diarize(samples=samples(TALK), references=[samples([(EVE, 3)]), samples([(900, 3)])])
    )

    assert [one.speaker for one in first.turns] == [0, 1]
    assert [one.speaker for one in known.turns] == [1, 0, 1, 2]
    assert len(known.voices) == 3
    assert [one.speaker for one in referred.turns] == [2, 3, 2, 0]
    assert len(referred.voices) == 4


async def test_a_threshold_of_two_joins_all_voices(engine):
    answer = await engine.diarize(Diarize(samples=samples(TALK), threshold=2))

    assert {one.speaker for one in answer.turns} == {0}


@pytest.mark.parametrize("tones", [[(0, 3)], [(ANN, 0.0001)], [(ANN, 0.1)]])
async def test_a_block_without_speech_has_no_turns(engine, tones):
    answer = await engine.diarize(Diarize(samples=samples(tones)))

    assert (answer.turns, answer.voices) == ([], [])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (Diarize(samples=b""), "1 to 4800000 samples, not 0"),
        (Diarize(samples=b"abc"), "not 1.5"),
        (Diarize(samples=bytes(300 * RATE_HZ * 2 + 2)), "not 4.8e"),
        (Diarize(samples=b"ab", references=[bytes(11 * RATE_HZ * 2)]), "1 to 160000 samples"),
        (Diarize(samples=b"ab", voices=[[1.0]]), "voices were computed by another model"),
    ],
)
async def test_a_block_that_cannot_be_computed_is_refused(engine, block, message):
    with pytest.raises(CommandFailed, match=message) as refused:
        await engine.diarize(block)

    assert refused.value.failure is Failure.INVALID


async def test_a_block_that_is_not_wanted_any_more_stops_at_the_next_voice(path):
    model = DiarizationModel(config(path).start_command(deaths=0, listening_fd=None))
    looks = count(1)
    with pytest.raises(Cancelled):
        model.compute(Diarize(samples=samples(TALK)), lambda: next(looks) == 3, lambda _: None)
    stopped_at = next(looks) - 1
    again = model.compute(Diarize(samples=samples(TALK)), lambda: next(looks) < 0, lambda _: None)

    assert stopped_at == 3
    assert next(looks) > 20  # of a whole block
    assert len(again.voices) == 3  # the native code goes on after a stop


async def test_other_commands_are_refused(engine):
    with pytest.raises(CommandFailed, match="tells speakers apart; it cannot embed"):
        await engine.embed(["one"])


async def test_a_model_that_cannot_be_computed_is_not_loaded_and_the_reason_is_named(tmp_path):
    path = write_speakers(tmp_path / "tones")
    path.write_bytes(path.read_bytes().replace(b"Concat", b"Conkat"))
    async with EngineClient(config(path)) as engine:
        with pytest.raises(EngineStartError, match="Conkat"):
            await engine.ready()
