"""Memory of weights: huge pages and mapped files. In this process, to count its own pages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama import LlamaLog, LlamaModel, huge_pages
from llm_backend.engine.llama.cpu_buffers import Buffer
from llm_backend.engine.llama.huge_pages import fit_in_memory, prepare_weights
from tests.engine.fakes import load_command
from tests.engine.gguf_models import write_llama

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
pytestmark = pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here"
)

Opened = Callable[..., LlamaModel]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A model in this process, gone after the test."""
    log, models = LlamaLog(), []

    def opened(**fields: object) -> LlamaModel:
        models.append(LlamaModel(load_command(**fields), log))
        return models[-1]

    yield opened
    for model in models:
        native.llama_free(model.context)
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


LOAD = """
import os, re, sys
from pathlib import Path
from llm_backend.engine.llama import LlamaModel, LlamaLog, huge_pages
from tests.engine.fakes import load_command

def huge_kib():
    found = re.search(r"AnonHugePages:\\s+(\\d+)", Path("/proc/self/smaps_rollup").read_text())
    return int(found[1])

huge_pages._LOCK = f"llm-backend/tests/{os.getpid()}"
before = huge_kib()
model = LlamaModel(load_command(model_path=Path(sys.argv[1])), LlamaLog())
print(huge_kib() - before)
"""


def test_weights_lie_in_huge_pages(large_llama):
    """In a fresh process: memory that earlier tests have freed lies in small pages."""
    command = [sys.executable, "-c", LOAD, str(large_llama)]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True)

    # not all: there may be too few
    assert int(loaded.stdout) * 1024 > large_llama.stat().st_size / 2


def test_a_buffer_smaller_than_a_huge_page_is_left_alone(monkeypatch):
    advised = []
    monkeypatch.setattr(huge_pages, "ADVISE", lambda *call: advised.append(call) or 0)
    small, large = Buffer(context=1 << 21, size=1 << 20), Buffer(context=5, size=5 << 21)
    huge_pages._advise(small)
    huge_pages._advise(large)

    assert [(first, length) for first, length, _ in advised] == [(1 << 21, 4 << 21)]


@pytest.mark.parametrize(
    ("choice", "maps"), [({}, False), ({"mmap": True}, True), ({"mmap": False}, False)]
)
def test_weights_are_read_unless_a_setting_maps_them(opened, tiny_llama, tmp_path, choice, maps):
    own = tmp_path / "own.gguf"  # the process may have mapped the other one for another test
    shutil.copy(tiny_llama, own)
    opened(model_path=own, **choice)

    assert is_mapped(own) == maps


def test_weights_that_may_not_be_copied_are_mapped():
    with prepare_weights([Path(__file__)], may_copy=False) as copies:
        assert not copies


def test_a_second_load_waits_for_the_first_for_a_while(monkeypatch):
    monkeypatch.setattr(huge_pages, "_WAIT_S", 0.1)
    with prepare_weights([], may_copy=True) as copies, prepare_weights([], may_copy=True) as again:
        assert copies
        assert not again
    with prepare_weights([], may_copy=True) as copies:
        assert copies


def test_weights_are_mapped_if_the_setting_of_huge_pages_is_unreadable(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path)  # a folder, which cannot be read
    with prepare_weights([], may_copy=True) as copies:
        assert not copies


def test_a_model_computes_the_same_wherever_its_weights_are(opened, tiny_llama):
    rows = [
        model._decode([BatchChunk(slot=0, position=0, tokens=[5, 6, 7], outputs=[2])])[0].copy()
        for model in (opened(model_path=tiny_llama, mmap=maps) for maps in (True, False))
    ]

    assert np.array_equal(*rows)


def test_all_files_and_their_parts_have_to_fit_in_half_of_what_is_free(tmp_path):
    for part in (1, 2):
        (tmp_path / f"x-0000{part}-of-00002.gguf").write_bytes(bytes(100))
    (tmp_path / "draft.gguf").write_bytes(bytes(50))
    files = [tmp_path / "x-00001-of-00002.gguf", tmp_path / "draft.gguf"]

    assert fit_in_memory(files, 500)
    assert not fit_in_memory(files, 499)
