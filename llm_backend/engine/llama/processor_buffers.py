"""The buffers that the native code makes in the processor's memory, seen as they are made.

Weights, cells and what a pass computes in are such buffers, but for those that a device or the AMX
kernels make for themselves. The native code has no switch for how their memory is taken, so for a
while the function that makes them is exchanged for one that shows each to us first, in structs that
its headers call internal. Before that it is tried on a small buffer whether they are what they are
taken for; where they are not, nothing is exchanged.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import llama_cpp as native

__all__ = [
    "ADVISE",
    "CLEAR",
    "Buffer",
    "BufferType",
    "NativeLibrary",
    "address_of",
    "processor_buffer_kind",
    "seen_buffers",
    "works",
]

_TRIED = 1 << 12  # bytes of the buffer that it is tried on

_GetType = ctypes.CFUNCTYPE(ctypes.c_void_p)
_Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Advise = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

CLEAR = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)
"""What is in the field `clear` of a buffer: it fills the buffer with a value."""

ADVISE = _Advise(("madvise", ctypes.CDLL(None))) if sys.platform == "linux" else None
"""The system's `madvise(2)`."""


class BufferType(ctypes.Structure):
    """`ggml_backend_buffer_type`: how buffers of one kind are made."""

    _fields_: ClassVar = [
        (name, ctypes.c_void_p)
        for name in (
            *("get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size"),
            *("is_host", "device", "context"),
        )
    ]


class Buffer(ctypes.Structure):
    """`ggml_backend_buffer`: one of them. `context` is where the memory of the processor's is."""

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
    """Public functions of the native code; raises `AttributeError` if it lacks one."""

    def __init__(self) -> None:
        library = native.llama_cpp._lib
        self.kind: int = _GetType(("ggml_backend_cpu_buffer_type", library))()
        self.allocate = _Allocate(("ggml_backend_buft_alloc_buffer", library))
        self.clear = CLEAR(("ggml_backend_buffer_clear", library))
        self.free = _Free(("ggml_backend_buffer_free", library))


Look = Callable[[Buffer], None]


@contextmanager
def seen_buffers(look: Look) -> Iterator[bool]:
    """`look` is shown each of them that is made meanwhile, before anything is written to it. Gives
    whether that works here: on Linux, with the libraries as they are known."""
    kind = processor_buffer_kind()
    if kind is None:
        yield False
        return
    with _replace_allocator(kind, look):
        yield True


def processor_buffer_kind() -> BufferType | None:
    """How the processor's buffers are made, if that is as it is known here."""
    if sys.platform != "linux":  # advice means something else elsewhere
        return None
    try:
        library = NativeLibrary()
    except AttributeError:
        return None
    kind = BufferType.from_address(library.kind)
    if kind.get_max_size or kind.get_alloc_size or kind.device or kind.context:
        return None  # what that kind leaves out: these are other fields
    return kind if works(library, kind) else None


def works(library: NativeLibrary, kind: BufferType) -> bool:
    """Whether the functions in these structs are the ones that are called."""
    cleared: list[int] = []
    tells = CLEAR(lambda place, _: cleared.append(place))

    def look(buffer: Buffer) -> None:
        buffer.clear = address_of(tells)

    with _replace_allocator(kind, look):
        place = library.allocate(library.kind, _TRIED)
    if not place:
        return False
    library.clear(place, 0)
    library.free(place)
    return cleared == [place]


@contextmanager
def _replace_allocator(kind: BufferType, look: Look) -> Iterator[None]:
    own_address = kind.alloc_buffer
    own = _Allocate(own_address)

    def allocated(kind_place: int, size: int) -> int | None:
        place: int | None = own(kind_place, size)
        if place:
            buffer = Buffer.from_address(place)
            if (buffer.kind, buffer.size) == (kind_place, size) and buffer.context:
                look(buffer)
        return place

    ours = _Allocate(allocated)  # lives for as long as it may be called
    kind.alloc_buffer = address_of(ours)
    try:
        yield
    finally:
        kind.alloc_buffer = own_address


def address_of(function: "ctypes._CFunctionType") -> int | None:
    """Where a function begins."""
    return ctypes.cast(function, ctypes.c_void_p).value
