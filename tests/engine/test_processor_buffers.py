"""Buffers of the native code, seen as they are made."""

import sys

import pytest

from llm_backend.engine.llama import processor_buffers
from llm_backend.engine.llama.processor_buffers import (
    Buffer,
    BufferType,
    NativeLibrary,
    hook_buffers,
    is_hookable,
    processor_buffer_kind,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there anything is exchanged")


@pytest.fixture
def kind() -> BufferType:
    """How the native code makes the processor's buffers."""
    return BufferType.from_address(NativeLibrary().kind)


def test_a_buffer_is_seen_before_anything_is_written_to_it():
    library, sizes = NativeLibrary(), []
    with hook_buffers(lambda buffer: sizes.append(buffer.size)) as works_here:
        place = library.allocate(library.kind, 12345)
    library.free(place)

    assert works_here
    assert sizes == [12345]


def test_what_is_exchanged_is_put_back(kind):
    before = kind.alloc_buffer
    with hook_buffers(lambda buffer: None):
        assert kind.alloc_buffer != before

    assert kind.alloc_buffer == before


def test_buffers_that_are_made_later_are_not_seen():
    library, seen = NativeLibrary(), []
    with hook_buffers(seen.append):
        pass
    library.free(library.allocate(library.kind, 100))

    assert not seen


def test_in_structs_that_are_not_as_they_are_known_nothing_is_exchanged(kind):
    before = kind.alloc_buffer
    kind.context = before  # the processor's have none
    try:
        with hook_buffers(lambda buffer: None) as works_here:
            during = kind.alloc_buffer
    finally:
        kind.context = None

    assert during == before
    assert not works_here


def test_functions_that_are_not_the_ones_called_do_not_work(kind):
    """As if the field held something else than what makes buffers."""
    other = BufferType.from_buffer_copy(kind)

    assert processor_buffer_kind() is not None
    assert not is_hookable(NativeLibrary(), other)


def test_where_the_functions_do_not_work_nothing_is_exchanged(kind, monkeypatch):
    before = kind.alloc_buffer
    monkeypatch.setattr(processor_buffers, "is_hookable", lambda library, kind: False)
    with hook_buffers(lambda buffer: None) as works_here:
        assert kind.alloc_buffer == before

    assert not works_here


def test_a_buffer_tells_where_its_memory_is():
    library, places = NativeLibrary(), []
    with hook_buffers(lambda buffer: places.append(buffer.context)):
        place = library.allocate(library.kind, 1 << 16)
    again = Buffer.from_address(place).context
    library.free(place)

    assert places == [again]
