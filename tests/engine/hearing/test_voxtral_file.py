"""Projectors of Voxtral, rewritten for llama.cpp."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from gguf import GGUFReader

from llm_backend.engine.llama import voxtral
from llm_backend.model_files import projector_footprint, read_header
from tests.engine.hearing.families import QWEN2_AUDIO, TEXT_SIZE, VOXTRAL
from tests.engine.hearing.gguf_files import write_projector

RENAMED = {"a.post_ln.weight": "mm.a.norm_pre.weight", "a.post_ln.bias": "mm.a.norm_pre.bias"}
ADDED = {"mm.a.mlp.1.bias", "mm.a.mlp.2.bias", "v.boi", "v.eoi"}


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_rewritten_file_has_the_same_numbers_under_other_names(tmp_path, monkeypatch, platform):
    path = write_projector(tmp_path / "mmproj.gguf", VOXTRAL)
    header = read_header(path)
    monkeypatch.setattr(sys, "platform", platform)

    with voxtral.rewrite(path, header) as rewritten:
        values = read_header(rewritten).values
        after = {one.name: one.data.copy() for one in GGUFReader(rewritten).tensors}

    before = {RENAMED.get(one.name, one.name): one.data for one in GGUFReader(path).tensors}
    assert values == {**header.values, "clip.projector_type": "glma"}
    assert after.keys() == before.keys() | ADDED
    for name, numbers in before.items():
        np.testing.assert_array_equal(after[name], numbers)
    for name in ADDED:
        np.testing.assert_array_equal(after[name], np.zeros(TEXT_SIZE))


def test_only_complete_projectors_of_voxtral_are_rewritten(tmp_path):
    complete = read_header(write_projector(tmp_path / "voxtral.gguf", VOXTRAL))
    other = read_header(write_projector(tmp_path / "qwen.gguf", QWEN2_AUDIO))
    sizes = {name: size for name, size in complete.tensor_bytes.items() if name != "a.post_ln.bias"}
    incomplete = type(complete)(**{**vars(complete), "tensor_bytes": sizes})

    assert voxtral.is_rewritable(complete)
    assert not voxtral.is_rewritable(other)
    assert not voxtral.is_rewritable(incomplete)


def test_memory_of_a_projector_that_is_rewritten_has_room_for_both(tmp_path):
    header = read_header(write_projector(tmp_path / "voxtral.gguf", VOXTRAL))
    large = replace(header, weights_bytes=1 << 30)
    other = replace(large, values={**header.values, "clip.projector_type": "glma"})

    assert projector_footprint(large) == 2 << 30
    assert projector_footprint(other) < 3 << 29
