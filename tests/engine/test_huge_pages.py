"""Where weights are. In this process, so that its own pages can be counted."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.batch import Chunk
from llm_backend.engine.llama import LlamaModel, NativeLog, huge_pages
from llm_backend.engine.llama.huge_pages import has_room_for_copy, in_huge_pages
from llm_backend.engine.llama.processor_buffers import Buffer, Library
from tests.engine.fakes import start

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
SIZE = 64 << 20

Opened = Callable[..., LlamaModel]


@pytest.fixture
def opened(tiny_llama) -> Iterator[Opened]:
    """A tiny model in this process, gone after the test."""
    log, models = NativeLog(), []

    def opened(**fields: object) -> LlamaModel:
        models.append(LlamaModel(start(model_path=str(tiny_llama), **fields), log))
        return models[-1]

    yield opened
    for model in models:
        native.llama_free(model._context)
        native.llama_model_free(model._model)


def is_mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def huge_bytes() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1]) * 1024


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here"
)
def test_what_is_written_to_a_large_buffer_lies_in_huge_pages():
    library, before = Library(), huge_bytes()
    with in_huge_pages():
        place = library.allocate(library.kind, SIZE)
    library.clear(place, 7)
    held = huge_bytes() - before
    library.free(place)

    assert held > SIZE / 2  # not all: the system may be out of them


def test_a_buffer_smaller_than_a_huge_page_is_left_alone(monkeypatch):
    advised = []
    monkeypatch.setattr(huge_pages, "ADVISE", lambda *call: advised.append(call) or 0)
    small, large = Buffer(context=1 << 21, size=1 << 20), Buffer(context=5, size=5 << 21)
    huge_pages._advise(small)
    huge_pages._advise(large)

    assert [(first, length) for first, length, _ in advised] == [(1 << 21, 4 << 21)]


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells what is mapped")
@pytest.mark.parametrize(
    ("choice", "room", "maps"),
    [(None, True, False), (None, False, True), (True, True, True), (False, False, False)],
)
def test_weights_are_mapped_where_a_copy_has_no_room_or_somebody_wants_it(
    opened, tiny_llama, monkeypatch, choice, room, maps
):
    available = (3 if room else 1) * tiny_llama.stat().st_size
    monkeypatch.setattr(huge_pages, "available_memory_bytes", lambda: available)
    opened(mmap=choice)

    assert is_mapped(tiny_llama) == maps


def test_a_model_computes_the_same_wherever_its_weights_are(opened):
    rows = [
        model._decode([Chunk(slot=0, position=0, tokens=[5, 6, 7], outputs=[2])])[0].copy()
        for model in (opened(mmap=True), opened(mmap=False))
    ]

    assert np.array_equal(*rows)


def test_all_parts_of_a_model_count(tmp_path, monkeypatch):
    for part in (1, 2):
        (tmp_path / f"x-0000{part}-of-00002.gguf").write_bytes(bytes(100))
    first = tmp_path / "x-00001-of-00002.gguf"
    monkeypatch.setattr(huge_pages, "available_memory_bytes", lambda: 399)
    has_too_little = has_room_for_copy(first)
    monkeypatch.setattr(huge_pages, "available_memory_bytes", lambda: 400)

    assert not has_too_little
    assert has_room_for_copy(first)
