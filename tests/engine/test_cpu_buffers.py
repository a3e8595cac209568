"""Buffers of the native code, seen as they are made."""

import sys

import pytest

from llm_backend.engine.llama import cpu_buffers
from llm_backend.engine.llama.cpu_buffers import (
    Buffer,
    BufferType,
    NativeLibrary,
    cpu_buffer_type,
    hook_buffers,
    is_hookable,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there anything is exchanged")


@pytest.fixture
def kind() -> BufferType:
    """The native type of buffers in CPU memory."""
    return BufferType.from_address(NativeLibrary().kind)


def test_hook_gets_a_buffer_before_it_is_written():
    library, sizes = NativeLibrary(), []
    with hook_buffers(lambda buffer: sizes.append(buffer.size)) as works_here:
        address = library.allocate(library.kind, 12345)
    library.free(address)

    assert works_here
    assert sizes == [12345]


def test_hook_restores_the_allocator(kind):
    before = kind.alloc_buffer
    with hook_buffers(lambda buffer: None):
        assert kind.alloc_buffer != before

    assert kind.alloc_buffer == before


def test_hook_ignores_later_buffers():
    library, seen = NativeLibrary(), []
    with hook_buffers(seen.append):
        pass
    library.free(library.allocate(library.kind, 100))

    assert not seen


def test_hook_replaces_nothing_if_struct_layouts_differ(kind):
    before = kind.alloc_buffer
    kind.context = before  # the processor's have none
    try:
        with hook_buffers(lambda buffer: None) as works_here:
            during = kind.alloc_buffer
    finally:
        kind.context = None

    assert during == before
    assert not works_here


def test_hook_test_fails_for_functions_that_are_not_called(kind):
    """The field contains another function than the allocator."""
    other = BufferType.from_buffer_copy(kind)

    assert cpu_buffer_type() is not None
    assert not is_hookable(NativeLibrary(), other)


def test_hook_replaces_nothing_if_its_test_fails(kind, monkeypatch):
    before = kind.alloc_buffer
    monkeypatch.setattr(cpu_buffers, "is_hookable", lambda library, kind: False)
    with hook_buffers(lambda buffer: None) as works_here:
        assert kind.alloc_buffer == before

    assert not works_here


def test_buffer_context_is_the_address_of_its_memory():
    library, addresses = NativeLibrary(), []
    with hook_buffers(lambda buffer: addresses.append(buffer.context)):
        address = library.allocate(library.kind, 1 << 16)
    again = Buffer.from_address(address).context
    library.free(address)

    assert addresses == [again]
