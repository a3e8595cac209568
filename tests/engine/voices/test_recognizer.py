"""A NeMo model in a worker: tokens, times and logprobs of a window, beside the library's own."""

import io
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig, EngineStartError
from llm_backend.engine.messages import Failure, ModelKind, Transcribe
from llm_backend.engine.model import DecodeError
from llm_backend.engine.voices.recognizer import RecognizerModel
from tests.tone_recognizer import write_recognizer
from tests.tone_speakers import RATE_HZ, Tone, tones_file
from tests.tone_voice import require_voices

pytestmark = pytest.mark.asyncio(loop_scope="module")

TALK: Sequence[Tone] = (
    (400, 0.5),
    (0, 0.3),
    (800, 0.5),
    (3000, 0.3),
    (1600, 0.5),
    (0, 2),
    (400, 1),
)


@pytest.fixture(scope="module", autouse=True)
def needs_extra() -> None:
    require_voices()


def samples(tones: Sequence[Tone] = TALK) -> bytes:
    with wave.open(io.BytesIO(tones_file(tones))) as file:
        return file.readframes(file.getnframes())


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[EngineClient]:
    config = EngineConfig(model_path=path, kind=ModelKind.TRANSCRIPTION, threads=1)
    async with EngineClient(config) as one:
        await one.ready()
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory) -> AsyncIterator[EngineClient]:
    async with running(write_recognizer(tmp_path_factory.mktemp("models") / "tones")) as one:
        yield one


@pytest.mark.parametrize(("kind", "seed"), [("tdt", 3), ("rnnt", None), ("ctc", 3)])
async def test_a_transcript_is_the_library_s(tmp_path, kind, seed):
    import sherpa_onnx

    path = write_recognizer(tmp_path / "model", kind=kind, seed=seed)
    tokens = str(path.with_name("tokens.txt"))
    if kind == "ctc":
        library = sherpa_onnx.OfflineRecognizer.from_nemo_ctc(str(path), tokens)
    else:
        parts = [str(path.with_name(f"{one}.onnx")) for one in ("encoder", "decoder", "joiner")]
        library = sherpa_onnx.OfflineRecognizer.from_transducer(
            *parts, tokens, model_type="nemo_transducer"
        )
    stream = library.create_stream()
    stream.accept_waveform(RATE_HZ, np.frombuffer(samples(), "<i2") / np.float32(32768))
    library.decode_stream(stream)
    theirs = stream.result
    async with running(path) as engine:
        answer = await engine.transcribe(Transcribe(samples=samples(), words=True))

    heard = [one for segment in answer.segments for one in segment.logprobs]
    words = [one for segment in answer.segments for one in segment.words]
    assert theirs.text
    assert "".join(one.text for one in answer.segments).strip() == theirs.text
    assert [one.bytes.decode() for one in heard] == theirs.tokens
    assert [one.logprob for one in heard] == (theirs.ys_log_probs or [None] * len(heard))
    begins = [
        start
        for text, start in zip(theirs.tokens, theirs.timestamps, strict=True)
        if text.startswith(" ")
    ]
    assert [one.start_s for one in words] == begins


async def test_segments_end_with_sentences_and_before_pauses(engine):
    answer = await engine.transcribe(Transcribe(samples=samples(), words=True))

    assert [one.text for one in answer.segments] == [" one two.", " three", " one"]
    assert [word.text for one in answer.segments for word in one.words] == [
        "one", "two.", "three", "one",
    ]  # fmt: skip
    starts = [one.start_s for one in answer.segments]
    assert starts == [pytest.approx(one, abs=0.17) for one in (0, 1.6, 4.1)]
    assert all(one.start_s <= one.end_s <= answer.end_s for one in answer.segments)
    assert (answer.end_s, answer.language, answer.language_name) == (pytest.approx(5.1), "", "")


async def test_the_shortest_window_is_computed(engine):
    answer = await engine.transcribe(Transcribe(samples=b"\1\0"))

    assert (answer.segments, answer.end_s) == ([], pytest.approx(1 / 16_000))


@pytest.mark.parametrize(
    ("field", "value"), [("language", "en"), ("prompt", "one"), ("temperature", 0.5)]
)
async def test_options_that_the_model_cannot_take_are_refused(engine, field, value):
    with pytest.raises(CommandFailed, match=f"takes no `{field}`") as refused:
        await engine.transcribe(Transcribe(samples=samples(), **{field: value}))

    assert (refused.value.failure, refused.value.field) == (Failure.INVALID, field)


@pytest.mark.parametrize("data", [b"", b"abc", bytes(30 * RATE_HZ * 2 + 2)])
async def test_windows_that_cannot_be_computed_are_refused(engine, data):
    with pytest.raises(CommandFailed, match="A window has 1 to 480000 samples") as refused:
        await engine.transcribe(Transcribe(samples=data))

    assert (refused.value.failure, refused.value.field) == (Failure.INVALID, "samples")


async def test_it_does_not_translate(engine):
    with pytest.raises(CommandFailed, match="cannot translate"):
        await engine.transcribe(Transcribe(samples=samples(), translate=True))


async def test_weights_that_the_library_cannot_compute_fail_the_start(tmp_path):
    path = write_recognizer(tmp_path / "model")
    path.with_name("joiner.onnx").write_bytes(b"no model")
    with pytest.raises(EngineStartError):
        async with running(path):
            pass


class _Stream:
    """A result of the library that is not the model's."""

    def __init__(self, tokens: list[str]) -> None:
        self.result = SimpleNamespace(
            tokens=tokens, timestamps=[0.1], durations=[], ys_log_probs=[]
        )

    def accept_waveform(self, rate_hz: int, samples: object) -> None:
        pass


@pytest.mark.parametrize("tokens", [[" secret"], [" one", " two"]])
async def test_tokens_that_are_not_the_model_s_fail_without_their_text(
    tmp_path, monkeypatch, tokens
):
    path = write_recognizer(tmp_path / "model")
    config = EngineConfig(model_path=path, kind=ModelKind.TRANSCRIPTION, threads=1)
    model = RecognizerModel(config.start_command(deaths=0, listening_fd=None))
    stream = _Stream(tokens)
    library = SimpleNamespace(create_stream=lambda: stream, decode_stream=lambda _: None)
    monkeypatch.setattr(model, "_recognizer", library)

    with pytest.raises(DecodeError, match="not those of the model") as failed:
        model.compute(Transcribe(samples=samples()), lambda: False, lambda _: None)

    assert failed.value.__suppress_context__
