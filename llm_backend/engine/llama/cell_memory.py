"""Memory for KV cells that is taken as they are used.

llama.cpp clears the cells of a new context by writing zeros, by which all of them become resident,
used or not. Fresh memory is zero already. So while a context is made, clearing gives whole pages
back to the kernel instead (`MADV_DONTNEED`): they read as zeros, and cost memory once something is
written to them. What cells hold is the same; what they take grows with use.

The native code has no switch for this, so two of its functions are exchanged, in structs that its
headers call internal. Before that it is tried on a small buffer whether they are what they are
taken for; where they are not, nothing is exchanged.
"""

import ctypes
import logging
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import llama_cpp as native

__all__ = ["CellMemory"]

_log = logging.getLogger(__name__)

_LARGE = 1 << 20  # bytes; with less there is nothing to gain
_TRIED = 1 << 12  # bytes of the buffer that it is tried on

_GetType = ctypes.CFUNCTYPE(ctypes.c_void_p)
_Allocate = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Clear = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)
_Free = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Advise = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Kind(ctypes.Structure):
    """`ggml_backend_buffer_type`: how buffers of one kind are made."""

    _fields_: ClassVar = [
        (name, ctypes.c_void_p)
        for name in (
            *("get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size"),
            *("is_host", "device", "context"),
        )
    ]


class _Buffer(ctypes.Structure):
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


class _Library:
    """Public functions of the native code; raises `AttributeError` if it lacks one."""

    def __init__(self) -> None:
        library = native.llama_cpp._lib
        self.kind: int = _GetType(("ggml_backend_cpu_buffer_type", library))()
        self.allocate = _Allocate(("ggml_backend_buft_alloc_buffer", library))
        self.clear = _Clear(("ggml_backend_buffer_clear", library))
        self.free = _Free(("ggml_backend_buffer_free", library))


class CellMemory:
    """Keep it for as long as the contexts live that were made with it: it clears their buffers."""

    def __init__(self) -> None:
        self.is_taken_by_use = False
        self._cleared = 0  # how many buffers
        self._advise = _Advise(("madvise", ctypes.CDLL(None)))
        self._our_allocate = _Allocate(self._allocated)
        self._our_clear = _Clear(self._clear)

    @contextmanager
    def taken_by_use(self, *, is_wanted: bool = True) -> Iterator[None]:
        """Contexts that are made meanwhile take memory for cells as they use them, if that is
        wanted and the system and the libraries let them; `is_taken_by_use` tells."""
        kind = self._kind() if is_wanted else None
        if kind is None:
            _log.debug("engine.cells_taken_at_once")
            yield
            return
        self.is_taken_by_use = True
        with self._exchanged(kind):
            yield

    def _kind(self) -> "_Kind | None":
        """How the processor's buffers are made, if that is as it is known here."""
        if sys.platform != "linux":  # elsewhere the advice does not promise zeros
            return None
        try:
            library = _Library()
        except AttributeError:
            return None
        kind = _Kind.from_address(library.kind)
        if kind.get_max_size or kind.get_alloc_size or kind.device or kind.context:
            return None  # what that kind leaves out: these are other fields
        return kind if self._works(library, kind) else None

    def _works(self, library: _Library, kind: _Kind) -> bool:
        """Whether the functions that are exchanged are the ones that are called."""
        with self._exchanged(kind):
            buffer = library.allocate(library.kind, _TRIED)
        if not buffer:
            return False
        before = self._cleared
        library.clear(buffer, 0)
        library.free(buffer)
        return self._cleared == before + 1

    @contextmanager
    def _exchanged(self, kind: _Kind) -> Iterator[None]:
        own = kind.alloc_buffer
        self._own_allocate = _Allocate(own)
        kind.alloc_buffer = _address(self._our_allocate)
        try:
            yield
        finally:
            kind.alloc_buffer = own

    def _allocated(self, kind: int, size: int) -> int | None:
        """In the place of `alloc_buffer`: a buffer that is cleared by us."""
        place: int | None = self._own_allocate(kind, size)
        if place:
            buffer = _Buffer.from_address(place)
            if (buffer.kind, buffer.size) == (kind, size) and buffer.context:
                buffer.clear = _address(self._our_clear)
        return place

    def _clear(self, place: int, value: int) -> None:
        """In the place of `clear`."""
        buffer = _Buffer.from_address(place)
        self._cleared += 1
        if value or not self._given_back(buffer.context, buffer.size):
            ctypes.memset(buffer.context, value, buffer.size)

    def _given_back(self, start: int, size: int) -> bool:
        """Make memory zero by giving its whole pages back; False if that is not to be had, for
        pages that are locked or huge, say."""
        if size < _LARGE:
            return False
        end = start + size
        first, last = _page(start + mmap.PAGESIZE - 1), _page(end)
        if self._advise(first, last - first, mmap.MADV_DONTNEED) != 0:
            return False
        ctypes.memset(start, 0, first - start)
        ctypes.memset(last, 0, end - last)
        return True


def _page(address: int) -> int:
    """Where the page of an address begins."""
    return address - address % mmap.PAGESIZE


def _address(function: "ctypes._CFunctionType") -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value
