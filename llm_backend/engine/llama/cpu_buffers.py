"""Hook on the native code's buffers in CPU memory, called as each one is allocated.

Weights, cells and the temporary data of a pass are such buffers, unless a device or the AMX kernels
allocate them. The native code has no option for how their memory is allocated. So its allocating
function is replaced for a while by one that also passes each buffer to the hook. The pointer to
that function is in structs that ggml's headers call internal. A small buffer first tests whether
the structs have the assumed layout. If they have not, nothing is replaced."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import llama_cpp as native

from llm_backend.operating_system import c_library, is_linux

_TEST_BYTES = 1 << 12  # size of the test buffer

_GetType = ctypes.CFUNCTYPE(ctypes.c_void_p)
_Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Advise = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

CLEAR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)
"""Type of a buffer's field `clear`, a function that fills the buffer with a value."""

ADVISE = _Advise(("madvise", c_library())) if is_linux() else None
"""Linux's `madvise(2)`; None elsewhere."""


class BufferType(ctypes.Structure):
    """`ggml_backend_buffer_type`: functions that allocate buffers of one type."""

    _fields_: ClassVar = [
        (name, ctypes.c_void_p)
        for name in (
            *("get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size"),
            *("is_host", "device", "context"),
        )
    ]


class Buffer(ctypes.Structure):
    """`ggml_backend_buffer`: one buffer. `context` is the address of its memory if it is in CPU
    memory."""

    _fields_: ClassVar = [
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("free_buffer", "get_base", "init_tensor", "memset_tensor", "set_tensor"),
                *("get_tensor", "set_tensor_2d", "get_tensor_2d", "cpy_tensor", "clear", "reset"),
                *("kind", "context"),
            )
        ),
        ("size", ctypes.c_size_t),
    ]


class NativeLibrary:
    """Public functions of the native code. Raises `AttributeError` if one is missing."""

    def __init__(self) -> None:
        library = native.llama_cpp._lib
        self.kind: int = _GetType(("ggml_backend_cpu_buffer_type", library))()
        self.allocate = _Allocate(("ggml_backend_buft_alloc_buffer", library))
        self.clear = CLEAR(("ggml_backend_buffer_clear", library))
        self.free = _Free(("ggml_backend_buffer_free", library))


BufferHook = Callable[[Buffer], None]


@contextmanager
def hook_buffers(hook: BufferHook) -> Iterator[bool]:
    """Calls `hook` with each buffer allocated inside the block, before the buffer is written.
    Yields True if that is supported: on Linux, with the known libraries."""
    kind = cpu_buffer_type()
    if kind is None:
        yield False
        return
    with _replace_allocator(kind, hook):
        yield True


def cpu_buffer_type() -> BufferType | None:
    """Returns the type of the buffers in CPU memory; None elsewhere than on Linux, or if the layout
    of its struct is not the known one."""
    if not is_linux():  # `ADVISE`, which hooks use, exists there only
        return None
    try:
        library = NativeLibrary()
    except AttributeError:
        return None
    kind = BufferType.from_address(library.kind)
    if kind.get_max_size or kind.get_alloc_size or kind.device or kind.context:
        return None  # fields that this type leaves empty: the layout differs
    return kind if is_hookable(library, kind) else None


def is_hookable(library: NativeLibrary, kind: BufferType) -> bool:
    """Tests with a small buffer whether the native code calls functions in these structs."""
    cleared: list[int] = []
    record_clear = CLEAR(lambda address, _: cleared.append(address))

    def hook(buffer: Buffer) -> None:
        buffer.clear = address_of(record_clear)

    with _replace_allocator(kind, hook):
        address = library.allocate(library.kind, _TEST_BYTES)
    if not address:
        return False
    library.clear(address, 0)
    library.free(address)
    return cleared == [address]


@contextmanager
def _replace_allocator(kind: BufferType, hook: BufferHook) -> Iterator[None]:
    original_address = kind.alloc_buffer
    original = _Allocate(original_address)

    def allocate(kind_address: int, size: int) -> int | None:
        address: int | None = original(kind_address, size)
        if address:
            buffer = Buffer.from_address(address)
            if (buffer.kind, buffer.size) == (kind_address, size) and buffer.context:
                hook(buffer)
        return address

    replacement = _Allocate(allocate)  # must not be freed while it may be called
    kind.alloc_buffer = address_of(replacement)
    try:
        yield
    finally:
        kind.alloc_buffer = original_address


def address_of(function: "ctypes._CFunctionType") -> int | None:
    """Returns the address of a function."""
    return ctypes.cast(function, ctypes.c_void_p).value
