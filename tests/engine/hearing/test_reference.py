"""Models that hear give the reference implementation's embeddings and greedy tokens.

The weights are random and tiny; `make_reference.py` wrote what the reference made of them.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine import EngineClient
from llm_backend.engine.llama import capture_log
from llm_backend.engine.llama.projector import NativeProjector
from llm_backend.engine.media_runs import Part, Run
from llm_backend.engine.messages import Generate, MediaItem, MediaKind, Sampling
from tests.engine.conftest import answer, config
from tests.engine.fakes import load_command
from tests.engine.hearing.families import (
    CONTEXT_TOKENS,
    FAMILIES,
    PROMPTS,
    QWEN3_OMNI,
    RECORDINGS,
    TEXT_SIZE,
    Family,
    chirp_file,
)
from tests.engine.hearing.gguf_files import write_projector, write_text_model

EMBEDDING_TOLERANCE = 0.02
"""Of embeddings with a standard deviation of 1.2 to 2.4: llama.cpp rounds the inputs of
convolutions to 16 bits."""
TOLERANCES = {QWEN3_OMNI.name: 0.025}
"""Of families whose reference hears something else after the last second of audio."""
LOGPROB_TOLERANCE = 0.1
ENTRIES = json.loads(Path(__file__).with_name("reference.json").read_text())["entries"]

entries = pytest.mark.parametrize(
    "entry", [pytest.param(one, id=f"{one['family']}, {one['recording']}") for one in ENTRIES]
)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """The text model and the projector of each family."""
    folder = tmp_path_factory.mktemp("hearing")
    return {
        name: (
            write_text_model(folder / f"{name}.gguf", family, template="{{ messages }}"),
            write_projector(folder / f"{name}-mmproj.gguf", family),
        )
        for name, family in FAMILIES.items()
    }


@entries
def test_embeddings_are_those_of_the_reference(files, entry):
    model, projector = files[entry["family"]]
    rows = _embeddings(model, projector, _recording(entry))
    expected = np.frombuffer(base64.b64decode(entry["embeddings"]), dtype="<f4")

    assert len(rows) == sum(one[0] for one in entry["prompt"] if isinstance(one, list))
    assert rows[entry["rows"]] == pytest.approx(
        expected.reshape(-1, TEXT_SIZE),
        abs=TOLERANCES.get(entry["family"], EMBEDDING_TOLERANCE),
    )


@entries
async def test_prompt_and_greedy_tokens_are_those_of_the_reference(files, entry):
    model, projector = files[entry["family"]]
    text, at = _prompt(FAMILIES[entry["family"]])
    audio = _recording(entry, at=at)
    request = Generate(
        id="greedy",
        prompt=text,
        media=[audio],
        max_tokens=len(entry["answer"]),
        sampling=Sampling(temperature=0, logprobs=0),
        ignore_eos=True,
    )
    async with EngineClient(
        config(model, projector_path=projector, context_tokens=CONTEXT_TOKENS, slots=1)
    ) as engine:
        await engine.ready()
        prompt = await engine.tokenize_with_media(text, media=[audio], add_bos=True)
        found = [one for delta in await answer(engine, request) for one in delta.logprobs]

    assert prompt == _with_places(entry["prompt"])
    assert [one.token for one in found] == entry["answer"]
    assert [one.logprob for one in found] == pytest.approx(entry["logprobs"], abs=LOGPROB_TOLERANCE)


def _prompt(family: Family) -> tuple[str, int]:
    """The family's prompt without what the engine adds, and the place of the audio in it."""
    before, after = PROMPTS[family.name].split(family.audio)
    for added in family.added_tokens:
        before, after = before.replace(added, ""), after.replace(added, "")
    return before + after, len(before)


def _with_places(prompt: list[int | list[int]]) -> list[int | None]:
    """The prompt's tokens with None for each embedding."""
    found: list[int | None] = []
    for one in prompt:
        found += [None] * one[0] if isinstance(one, list) else [one]
    return found


def _recording(entry: dict[str, Any], *, at: int = 0) -> MediaItem:
    (one,) = [each for each in RECORDINGS[entry["family"]] if each.name == entry["recording"]]
    data = chirp_file(one)
    digest = hashlib.sha256(data).digest()
    return MediaItem(at=at, medium=MediaKind.AUDIO, data=data, digest=digest)


def _embeddings(model: Path, projector: Path, audio: MediaItem) -> np.ndarray:
    """The engine's embeddings of a recording: [embeddings, TEXT_SIZE] float32."""
    log = capture_log()
    loaded = native.llama_model_load_from_file(bytes(model), native.llama_model_default_params())
    command = load_command(model_path=model, projector_path=projector)
    ears = NativeProjector(command, loaded, log)
    parts = [one for one in ears.pieces(audio) if isinstance(one, Part)]
    runs = [
        Run(media=audio, number=0, part_index=index, part=part, start=0)
        for index, part in enumerate(parts)
    ]
    rows = np.concatenate([ears.embeddings(run).rows for run in runs])
    native.llama_model_free(loaded)
    return rows
