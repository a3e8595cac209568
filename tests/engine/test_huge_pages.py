"""Memory of weights: huge pages or mapped. In this process, so that its own pages are counted."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama import LlamaModel, NativeLog, huge_pages
from llm_backend.engine.llama.huge_pages import fit_in_memory, prepare_weights
from llm_backend.engine.llama.processor_buffers import Buffer
from tests.engine.fakes import start
from tests.engine.gguf_models import write_llama

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here"
)

Opened = Callable[..., LlamaModel]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A model in this process, gone after the test."""
    log, models = NativeLog(), []

    def opened(**fields: object) -> LlamaModel:
        models.append(LlamaModel(start(**fields), log))
        return models[-1]

    yield opened
    for model in models:
        native.llama_free(model._context)
        native.llama_model_free(model._model)


@pytest.fixture(autouse=True)
def _loading_alone(monkeypatch) -> None:
    """Engines that others load on this machine meanwhile are not waited for."""
    monkeypatch.setattr(huge_pages, "_LOCK", f"\0llm-backend/tests/{os.getpid()}")


@pytest.fixture
def large_llama(tmp_path) -> Path:
    """A llama of some 25 MB."""
    return write_llama(tmp_path / "large.gguf", size=512)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def huge_bytes() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1]) * 1024


def test_weights_are_loaded_into_huge_pages(opened, large_llama):
    before = huge_bytes()
    opened(model_path=str(large_llama))

    assert huge_bytes() - before > large_llama.stat().st_size / 2  # not all: there may be too few


def test_small_buffers_are_not_advised(monkeypatch):
    advised = []
    monkeypatch.setattr(huge_pages, "ADVISE", lambda *call: advised.append(call) or 0)
    small, large = Buffer(context=1 << 21, size=1 << 20), Buffer(context=5, size=5 << 21)
    huge_pages._advise(small)
    huge_pages._advise(large)

    assert [(first, length) for first, length, _ in advised] == [(1 << 21, 4 << 21)]


@pytest.mark.parametrize(
    ("choice", "maps"), [({}, False), ({"mmap": True}, True), ({"mmap": False}, False)]
)
def test_weights_are_read_unless_mmap_is_set(opened, tiny_llama, choice, maps):
    opened(model_path=str(tiny_llama), **choice)

    assert is_mapped(tiny_llama) == maps


def test_weights_that_may_not_be_copied_are_mapped():
    with prepare_weights([Path(__file__)], may_copy=False) as copies:
        assert not copies


def test_loading_waits_for_another_engine_that_loads(monkeypatch):
    monkeypatch.setattr(huge_pages, "_WAIT_S", 0.1)
    with prepare_weights([], may_copy=True) as copies, prepare_weights([], may_copy=True) as again:
        assert copies
        assert not again
    with prepare_weights([], may_copy=True) as copies:
        assert copies


def test_weights_are_mapped_if_the_huge_page_setting_is_unreadable(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path)  # a folder, which cannot be read
    with prepare_weights([], may_copy=True) as copies:
        assert not copies


def test_logits_do_not_depend_on_the_memory_of_weights(opened, tiny_llama):
    rows = [
        model._decode([BatchChunk(slot=0, position=0, tokens=[5, 6, 7], outputs=[2])])[0].copy()
        for model in (opened(model_path=str(tiny_llama), mmap=maps) for maps in (True, False))
    ]

    assert np.array_equal(*rows)


def test_all_parts_must_fit_into_half_of_the_free_memory(tmp_path):
    for part in (1, 2):
        (tmp_path / f"x-0000{part}-of-00002.gguf").write_bytes(bytes(100))
    (tmp_path / "draft.gguf").write_bytes(bytes(50))
    files = [tmp_path / "x-00001-of-00002.gguf", tmp_path / "draft.gguf"]

    assert fit_in_memory(files, 500)
    assert not fit_in_memory(files, 499)
