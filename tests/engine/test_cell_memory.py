"""Memory of KV cells, and that lazy allocation does not change their contents. In this process, so
that its own pages can be counted."""

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama import LlamaLog, LlamaModel, cells
from llm_backend.engine.llama.cell_memory import CellMemory
from llm_backend.engine.llama.cpu_buffers import Buffer, NativeLibrary
from tests.engine.fakes import load_command
from tests.engine.gguf_models import write_windowed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux promises the zeros")

CELL_BYTES = 2 * 2 * 32 * 4  # keys and values of two layers, two heads of 16 numbers each
LARGE = 5 * (1 << 20) + 64  # of a buffer that ends in the middle of a page

Opened = Callable[..., LlamaModel]


@pytest.fixture
def opened(tiny_llama) -> Iterator[Opened]:
    """A tiny model in this process, gone after the test."""
    log, models = LlamaLog(), []

    def opened(**fields: object) -> LlamaModel:
        fields = {"model_path": tiny_llama, "batch_tokens": 512, **fields}
        models.append(LlamaModel(load_command(**fields), log))
        return models[-1]

    yield opened
    for model in models:
        native.llama_free(model.context)
        native.llama_model_free(model._model)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def read(model: LlamaModel, slot: int, tokens: list[int]) -> None:
    model._decode([BatchChunk(slot=slot, position=0, tokens=tokens, outputs=[])])


def logits(model: LlamaModel, slot: int, position: int) -> np.ndarray:
    """Logits after one more token: [vocab] float32."""
    row = model._decode([BatchChunk(slot=slot, position=position, tokens=[7], outputs=[0])])[
        0
    ].copy()
    model.truncate(slot, position)
    return row


def test_cells_are_allocated_lazily(opened):
    cell_bytes = 64 * 4096 * CELL_BYTES
    before = resident_bytes()
    model = opened(slots=64, context_tokens=4096)
    made = resident_bytes()
    read(model, 3, [5] * 128)

    assert made - before < cell_bytes / 4  # and what the context keeps of each cell
    assert resident_bytes() - made < cell_bytes / 8


def test_cells_of_a_locked_model_are_allocated_at_the_start(opened):
    cell_bytes = 64 * 4096 * CELL_BYTES
    before = resident_bytes()
    model = opened(slots=64, context_tokens=4096, mlock=True)

    assert resident_bytes() - before > cell_bytes * 7 / 8
    assert not model._cell_memory.is_lazy


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("size", [100, LARGE])
def test_cleared_buffer_holds_the_value_in_every_byte(size, value):
    library, memory = NativeLibrary(), CellMemory()
    with memory.allocate_lazily():
        address = library.allocate(library.kind, size)
    buffer = Buffer.from_address(address)
    ctypes.memset(buffer.context, 255, size)
    library.clear(address, value)
    used_tokens = ctypes.string_at(buffer.context, size)
    library.free(address)

    assert used_tokens == bytes([value]) * size


@pytest.mark.parametrize("flash_attention", [False, True])
@pytest.mark.parametrize("used_tokens", [40, 400], ids=["a few cells", "most cells"])
def test_copied_slot_computes_the_same_logits(opened, used_tokens, flash_attention):
    model = opened(slots=3, context_tokens=512, flash_attention=flash_attention)
    tokens = [5 + number % 200 for number in range(used_tokens)]
    read(model, 0, tokens)
    read(model, 2, [9] * 20)  # overwrites its cells
    model.copy(0, 2)

    assert np.array_equal(logits(model, 2, used_tokens), logits(model, 0, used_tokens))
    assert model.truncate(2, 10)
    # Other kernels compute ten tokens than many: another rounding.
    assert np.allclose(logits(model, 2, 10), fresh(model, tokens[:10]), atol=0.05)


def fresh(model: LlamaModel, tokens: list[int]) -> np.ndarray:
    """The same, computed anew in another slot."""
    model.truncate(1, 0)
    read(model, 1, tokens)
    return logits(model, 1, len(tokens))


@pytest.mark.parametrize("has_update", [True, False], ids=["", "without the native update"])
@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "lazy"])
def test_copied_slot_has_its_cells_before_the_next_pass(opened, monkeypatch, is_locked, has_update):
    if has_update:
        assert cells._update_memory is not None
    else:
        monkeypatch.setattr(cells, "_update_memory", None)
    model = opened(slots=4, context_tokens=512, flash_attention=True, mlock=is_locked)
    tokens, others = ([first + number % 200 for number in range(400)] for first in (5, 50))
    read(model, 0, tokens)
    read(model, 3, others)
    expected, other_state = logits(model, 0, 400), model.state(3)
    model.copy(0, 1)  # the native code copies most cells in its next pass only
    copied_state = model.state(1)
    assert model.truncate(1, 40)
    model.copy(1, 2)  # a few cells
    assert model.restore(0, other_state, 400)
    assert np.allclose(logits(model, 2, 40), fresh(model, tokens[:40]), atol=0.05)
    assert model.restore(3, copied_state, 400)
    assert np.array_equal(logits(model, 3, 400), expected)
    model.copy(3, 2)
    assert model.restore(3, other_state, 400)

    assert np.array_equal(logits(model, 2, 400), expected)


def test_copies_of_short_slots_touch_used_cells_only(opened):
    model = opened(slots=64, context_tokens=4096, flash_attention=True)
    read(model, 0, [5] * 128)
    before = resident_bytes()
    for target in range(1, 64):
        model.copy(0, target)
    logits(model, 63, 128)

    assert resident_bytes() - before < 64 * 4096 * CELL_BYTES / 8
    assert native.llama_memory_seq_pos_max(model._memory, 63) == 127


def test_slot_that_has_lost_the_window_before_a_position_is_not_truncated(opened, tmp_path):
    """Shared cells that a sliding window has left are given to other slots."""
    path = write_windowed(tmp_path / "windowed.gguf")
    model = opened(model_path=path, slots=3, context_tokens=512, kv_unified=True)
    tokens = [5 + number % 200 for number in range(300)]
    read(model, 0, [9] * 100)
    read(model, 1, tokens)
    model.truncate(0, 0)
    read(model, 2, [7] * 150)
    model.copy(1, 0)

    assert not model.truncate(1, 60)
    assert not model.truncate(0, 60)
    assert model.truncate(1, 290)
    assert np.allclose(logits(model, 1, 290), fresh(model, tokens[:290]), atol=0.05)
