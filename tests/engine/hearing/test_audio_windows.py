"""Windows of audio: how many embeddings a recording has, at the ends of windows."""

import ctypes
import hashlib
import math
from dataclasses import replace

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.llama import capture_log
from llm_backend.engine.llama.audio_windows import audio_limit_s
from llm_backend.engine.llama.projector import NativeProjector
from llm_backend.engine.llama.rotary_positions import RotaryPositions
from llm_backend.engine.llama.spectrogram import Spectrogram
from llm_backend.engine.llama.stacked_norm import StackedNorm
from llm_backend.engine.media_runs import MediaError, Part, Run
from llm_backend.engine.messages import MediaItem, MediaKind
from llm_backend.model_files import read_header
from tests.engine.fakes import load_command
from tests.engine.hearing.families import (
    AUDIO_FLAMINGO,
    GEMMA_4,
    GEMMA_4_UNIFIED,
    GLM_ASR,
    LFM2_AUDIO,
    MERALION,
    QWEN2_AUDIO,
    QWEN25_OMNI,
    TEXT_SIZE,
    ULTRAVOX,
    VOXTRAL,
    Family,
    Recording,
    chirp_file,
)
from tests.engine.hearing.gguf_files import write_projector, write_text_model


@pytest.fixture(scope="module")
def projectors(tmp_path_factory):
    """The projector of each family whose audio is divided into windows."""
    folder, log = tmp_path_factory.mktemp("windows"), capture_log()
    params = native.llama_model_default_params()
    loaded, found = [], {}
    for family in (
        AUDIO_FLAMINGO,
        GEMMA_4,
        GEMMA_4_UNIFIED,
        GLM_ASR,
        LFM2_AUDIO,
        MERALION,
        QWEN2_AUDIO,
        QWEN25_OMNI,
        ULTRAVOX,
        VOXTRAL,
    ):
        model = write_text_model(folder / f"{family.name}.gguf", family, template="{{ messages }}")
        projector = write_projector(folder / f"{family.name}-mmproj.gguf", family)
        loaded.append(native.llama_model_load_from_file(bytes(model), params))
        command = load_command(model_path=model, projector_path=projector, audio_limit_s=90)
        found[family.name] = NativeProjector(command, loaded[-1], log)
    yield found
    for one in loaded:
        native.llama_model_free(one)


@pytest.mark.parametrize(
    ("family", "seconds", "counts"),
    [
        (AUDIO_FLAMINGO, 34, [750, 100]),
        (GEMMA_4, 0.02, [1]),
        (GEMMA_4, 34, [750, 100]),
        (GEMMA_4_UNIFIED, 0.02, [1]),
        (GLM_ASR, 0.01, [3]),
        (GLM_ASR, 0.16, [4]),
        (GLM_ASR, 30, [377]),
        (GLM_ASR, 34, [377, 52]),
        (LFM2_AUDIO, 0.01, [1]),  # llama.cpp computes no spectrogram of one frame
        (LFM2_AUDIO, 0.07, [1]),
        (LFM2_AUDIO, 34, [426]),
        (MERALION, 0.01, [100]),
        (MERALION, 60, [100, 100]),
        (QWEN2_AUDIO, 0.01, [1]),
        (QWEN2_AUDIO, 0.1, [2]),
        (QWEN2_AUDIO, 30, [750]),
        (QWEN2_AUDIO, 30.02, [750]),  # too little for another embedding
        (QWEN2_AUDIO, 34, [750, 100]),
        (QWEN25_OMNI, 0.01, [1]),
        (QWEN25_OMNI, 2.02, [50]),
        (QWEN25_OMNI, 30, [750]),
        (QWEN25_OMNI, 30.02, [750]),
        (QWEN25_OMNI, 30.03, [750, 1]),
        (ULTRAVOX, 0.01, [1]),
        (ULTRAVOX, 0.17, [2]),
        (ULTRAVOX, 29.92, [187]),
        (ULTRAVOX, 30, [187, 1]),
        (ULTRAVOX, 34, [187, 26]),
        (ULTRAVOX, 59.9, [187, 187, 1]),  # a window more than llama.cpp makes of it
        (VOXTRAL, 3, [375]),
        (VOXTRAL, 60, [375, 375]),
        (MERALION, 30 + 1 / 16_000, [100]),  # less than a frame after a window
        (GEMMA_4, 30 + 1 / 16_000, [750]),
    ],
)
def test_windows_have_the_embeddings_of_the_audio(projectors, family: Family, seconds, counts):
    projector, audio = projectors[family.name], _audio(seconds)
    parts = [one for one in projector.pieces(audio) if isinstance(one, Part)]
    rows = [projector.embeddings(_run(audio, index, part)).rows for index, part in enumerate(parts)]

    assert [part.count for part in parts] == counts
    assert [one.shape for one in rows] == [(count, TEXT_SIZE) for count in counts]
    assert np.isfinite(np.concatenate(rows)).all()


def test_embeddings_do_not_depend_on_the_audio_before(projectors):
    projector = projectors[QWEN2_AUDIO.name]
    short, whole = _audio(3), _audio(30)
    part = Part(count=750, positions=750)
    first = projector.embeddings(_run(whole, 0, part)).rows
    projector.embeddings(_run(short, 0, Part(count=75, positions=75)))

    uncached = MediaItem(at=0, medium=MediaKind.AUDIO, data=whole.data, digest=b"another")
    again = projector.embeddings(_run(uncached, 0, part)).rows

    np.testing.assert_array_equal(again, first)


def test_only_complete_projectors_of_glm_asr_have_rotary_positions(tmp_path):
    complete = read_header(write_projector(tmp_path / "glm.gguf", GLM_ASR))
    other = read_header(write_projector(tmp_path / "qwen.gguf", QWEN2_AUDIO))
    values = {key: one for key, one in complete.values.items() if "head_count" not in key}

    assert RotaryPositions.of(complete) is not None
    assert RotaryPositions.of(other) is None
    assert RotaryPositions.of(replace(complete, values=values)) is None


def test_only_complete_projectors_of_meralion_have_a_norm_that_is_changed(tmp_path):
    complete = read_header(write_projector(tmp_path / "meralion.gguf", MERALION))
    other = read_header(write_projector(tmp_path / "qwen.gguf", QWEN2_AUDIO))
    values = {key: one for key, one in complete.values.items() if "embedding_length" not in key}

    assert StackedNorm.of(complete) is not None
    assert StackedNorm.of(other) is None
    assert StackedNorm.of(replace(complete, values=values)) is None


def test_only_lfm2_audio_has_a_limit_of_the_length_of_audio(tmp_path):
    limited = read_header(write_projector(tmp_path / "lfm2.gguf", LFM2_AUDIO))
    other = read_header(write_projector(tmp_path / "qwen.gguf", QWEN2_AUDIO))

    assert audio_limit_s(limited, TEXT_SIZE) == 327.84
    assert audio_limit_s(other, TEXT_SIZE) == math.inf


def test_chunk_of_another_structure_is_refused():
    zeros = ctypes.create_string_buffer(256)  # as a chunk of text begins

    with pytest.raises(MediaError, match="not the version that is needed"):
        Spectrogram.of(ctypes.addressof(zeros))


def _audio(seconds: float) -> MediaItem:
    data = chirp_file(Recording(name=f"{seconds} s", seconds=seconds))
    digest = hashlib.sha256(data).digest()
    return MediaItem(at=0, medium=MediaKind.AUDIO, data=data, digest=digest)


def _run(audio: MediaItem, index: int, part: Part) -> Run:
    return Run(media=audio, number=0, part_index=index, part=part, start=0)
