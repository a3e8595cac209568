"""whisper.cpp in a worker: windows of models of random weights, and of one that says a text."""

import logging
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient, EngineConfig, EngineStartError
from llm_backend.engine.messages import Generate, ModelKind, Transcribe, Transcribed
from llm_backend.engine.native_log import NativeLog
from llm_backend.engine.pass_threads import PassThreads
from tests.engine.fakes import load_command
from tests.whisper_models import HELLO, require_transcription, write_whisper

RATE_HZ = 16_000
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def needs_extra() -> None:
    require_transcription()


def config(path: Path, threads: int | None = 1) -> EngineConfig:
    return EngineConfig(model_path=path, kind=ModelKind.TRANSCRIPTION, threads=threads)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory) -> AsyncIterator[EngineClient]:
    path = write_whisper(tmp_path_factory.mktemp("whisper") / "hello.bin")
    async with EngineClient(config(path, threads=None)) as one:  # as by default
        await one.ready()
        yield one


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE_HZ)) * 5000).astype(
        "<i2"
    )


def window(samples: np.ndarray, **fields: Any) -> Transcribe:
    return Transcribe(samples=samples.tobytes(), **fields)


def spoken(answer: Transcribed) -> list[tuple[float, str, float]]:
    return [(one.start_s, one.text.strip(), one.end_s) for one in answer.segments]


async def test_a_window_has_segments_words_and_its_language(engine):
    answer = await engine.transcribe(window(noise(30), words=True, is_last=False))

    assert spoken(answer) == list(HELLO)
    assert [word.text for one in answer.segments for word in one.words] == [
        word for _, text, _ in HELLO for word in text.split()
    ]
    assert (answer.language, answer.language_name, answer.end_s) == ("de", "german", 30)


async def test_a_window_that_is_cut_early_continues_a_second_after_its_begin(tmp_path):
    path = write_whisper(tmp_path / "short.bin", [(0.0, "Hello", 0.5), (0.5, "world", None)])
    async with EngineClient(config(path)) as one:
        await one.ready()
        answer = await one.transcribe(window(noise(30), is_last=False))

    assert spoken(answer) == [(0.0, "Hello", 0.5)]
    assert answer.end_s == 1


@pytest.mark.parametrize(
    ("has_gpu", "gpu_layers", "learns"), [(False, None, True), (True, None, False), (True, 0, True)]
)
async def test_threads_are_learnt_on_the_processor_only(
    tmp_path, monkeypatch, has_gpu, gpu_layers, learns
):
    from llm_backend.engine.whisper import model as module
    from llm_backend.engine.whisper.library import LogCallback

    learning = []

    def pass_threads(count: int, set_count: object, *, is_learning: bool) -> PassThreads:
        learning.append(is_learning)
        return PassThreads(count, set_count, is_learning=is_learning)

    log = NativeLog(logging.getLogger("whisper"), LogCallback)
    monkeypatch.setattr(module, "capture_log", lambda _library: log)  # outlives no test
    monkeypatch.setattr(module, "has_gpu", lambda _library: has_gpu)
    monkeypatch.setattr(module, "PassThreads", pass_threads)
    path = write_whisper(tmp_path / "hello.bin")
    module.WhisperModel(load_command(model_path=path, threads=None, gpu_layers=gpu_layers))

    assert learning == [learns]


async def test_library_of_a_build_for_processors_has_no_gpu():
    from llm_backend.engine.whisper.library import has_gpu, open_library

    assert not has_gpu(open_library())


async def test_tokens_of_the_text_have_their_bytes_and_logprobs(engine):
    answer = await engine.transcribe(window(noise(5), language="de"))
    tokens = [one for segment in answer.segments for one in segment.logprobs]

    assert b"".join(one.bytes for one in tokens).decode() == " Hello world. Grüße an alle!"
    assert all(-1 < one.logprob <= 0 for one in tokens)


async def test_a_sampled_window_equals_that_of_the_binding_of_the_library(tmp_path):
    """Of a model of random weights, whose tokens differ with each sample and each parameter."""
    path, samples = write_whisper(tmp_path / "random.bin", None), noise(5)
    async with EngineClient(config(path)) as engine:
        await engine.ready()
        ours = await engine.transcribe(window(samples, language="en", temperature=0.4))
        other = await engine.transcribe(window(noise(5, 2), language="en", temperature=0.4))

    expected = said_by_the_binding(path, samples)
    assert expected
    assert [(one.tokens, one.text, one.start_s, one.end_s) for one in ours.segments] == expected
    silences = [answer.segments[0].no_speech_probability for answer in (ours, other)]
    assert silences[0] != silences[1]


def said_by_the_binding(
    path: Path, samples: np.ndarray
) -> list[tuple[list[int], str, float, float]]:
    native: Any = import_module("_pywhispercpp")
    parameters = native.whisper_context_default_params()
    parameters.use_gpu = False
    context = native.whisper_init_from_file_with_params(str(path), parameters)
    options = native.whisper_full_default_params(native.WHISPER_SAMPLING_GREEDY)
    options.print_progress = options.print_timestamps = False
    options.n_threads, options.language = 1, "en"
    options.temperature, options.temperature_inc = 0.4, 0.0
    audio = samples.astype(np.float32) / np.float32(32768)
    assert native.whisper_full(context, options, audio, len(audio)) == 0
    segments = []
    for at in range(native.whisper_full_n_segments(context)):
        count = native.whisper_full_n_tokens(context, at)
        tokens = [native.whisper_full_get_token_id(context, at, one) for one in range(count)]
        text = native.whisper_full_get_segment_text(context, at)
        text = text.decode() if isinstance(text, bytes) else text
        start, end = (
            min(5.0, read(context, at) / 100)
            for read in (native.whisper_full_get_segment_t0, native.whisper_full_get_segment_t1)
        )
        segments.append((tokens, text, start, end))
    native.whisper_free(context)
    return segments


async def test_times_end_where_the_window_ends(engine):
    answer = await engine.transcribe(window(noise(2.5), language="de", words=True))

    assert answer.end_s == 2.5
    assert max(one.end_s for one in answer.segments) == 2.5


@pytest.mark.parametrize("character", ["a", " ", "語", "\0", "🎙", "-"])
async def test_the_worker_survives_a_prompt_of_one_long_word(engine, character):
    prompted = await engine.transcribe(window(noise(1), prompt=character * 65_000))

    assert (await engine.status()).deaths == 0
    assert prompted.end_s == 1


async def test_the_end_of_a_long_prompt_is_what_counts(engine):
    prompts = [" Hello", "\n" * 60_000 + " Hello"]
    short, long = [
        await engine.transcribe(window(noise(5), language="de", prompt=prompt))
        for prompt in prompts
    ]

    assert spoken(long) == spoken(short)


async def test_a_prompt_and_a_context_come_before_the_window(engine):
    plain = await engine.transcribe(window(noise(5), language="de"))
    prompted = await engine.transcribe(window(noise(5), language="de", prompt=" Hello"))
    continued = await engine.transcribe(window(noise(5), language="de", context=[3]))

    assert spoken(prompted) == spoken(continued) != spoken(plain)  # its positions shift


@pytest.mark.parametrize(
    ("fields", "field"), [({"language": "xx"}, "language"), ({"samples": b""}, "samples")]
)
async def test_bad_windows_are_refused(engine, fields, field):
    with pytest.raises(CommandFailed) as refused:
        await engine.transcribe(Transcribe(**{"samples": noise(1).tobytes(), **fields}))

    assert refused.value.field == field


async def test_other_commands_are_refused(engine):
    with pytest.raises(CommandFailed, match="transcribes recordings; it cannot embed"):
        await engine.embed(["a"])
    with pytest.raises(CommandFailed, match="it cannot generate text"):
        await engine.generate(Generate(id="a", prompt="a"))
    with pytest.raises(CommandFailed, match="it cannot tokenize texts"):
        await engine.tokenize("a")
    assert (await engine.status()).deaths == 0


async def test_an_english_model_refuses_other_languages(tmp_path):
    path = write_whisper(tmp_path / "hello.en.bin", is_multilingual=False)
    async with EngineClient(config(path)) as engine:
        await engine.ready()
        answer = await engine.transcribe(window(noise(5)))

        assert (spoken(answer), answer.language) == (list(HELLO), "en")
        with pytest.raises(CommandFailed, match="English only"):
            await engine.transcribe(window(noise(1), language="de"))
        with pytest.raises(CommandFailed, match="cannot translate"):
            await engine.transcribe(window(noise(1), translate=True))


async def test_a_cut_model_file_is_refused(tmp_path):
    path = write_whisper(tmp_path / "cut.bin")
    path.write_bytes(path.read_bytes()[:100_000])
    async with EngineClient(config(path)) as engine:
        with pytest.raises(EngineStartError, match="is cut"):
            await engine.ready()
