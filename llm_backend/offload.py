"""Work that is linear in a large request, moved off the event loop to a thread.

One thread does all of it: work in Python holds the interpreter's lock, so a second thread would not
make it faster, but would make the event loop wait for two. Calls that hold the lock for long (a
parser in native code) are bounded by the limits of bodies, not by this.
"""

import asyncio
import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

__all__ = ["LARGE_BYTES", "REQUEST_BYTES", "add_weight", "is_large", "offload", "return_memory"]

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 32 * 1024
"""Requests below this size take a few milliseconds at most, whatever they hold."""

REQUEST_BYTES: ContextVar[int] = ContextVar("request_bytes", default=0)
"""Size of the request that the running task answers, with what was loaded for it."""

_RETURNED_BYTES = 256 * 1024
_RETURNED_AFTER_S = 1.0
_VALUE_BYTES = 16  # what a value counts as beside its text


def is_large() -> bool:
    """Whether the running request is so large that work for it is offloaded."""
    return REQUEST_BYTES.get() >= LARGE_BYTES


async def offload(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of the work: done here where the running request is small, else in the thread."""
    if not is_large():
        return work(*args, **kwargs)
    run = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_thread(), run)


def add_weight(*values: Any) -> None:  # Any: JSON values
    """Counts values that were loaded for the running request as part of its size; no more of them
    is looked at than makes it large."""
    size, unread = REQUEST_BYTES.get(), list(values)
    while unread and size < LARGE_BYTES:
        value = unread.pop()
        size += len(value) if isinstance(value, str) else _VALUE_BYTES
        unread += _children(value)
    REQUEST_BYTES.set(size)


def return_memory() -> None:
    """Has the allocator give back what a very large request has freed between pieces that are in
    use: a moment later, and once for all that end until then."""
    if REQUEST_BYTES.get() >= _RETURNED_BYTES:
        _freed_memory().return_soon()


class _FreedMemory:
    def __init__(self) -> None:
        self._is_due = False
        self._malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone

    def return_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_RETURNED_AFTER_S, self._return)

    def _return(self) -> None:
        self._is_due = False
        if self._malloc_trim is not None:
            _thread().submit(self._malloc_trim, 0)


@cache
def _freed_memory() -> _FreedMemory:
    return _FreedMemory()


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if not isinstance(value, list | tuple):
        return ()
    return value[: LARGE_BYTES // _VALUE_BYTES]


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-requests")
