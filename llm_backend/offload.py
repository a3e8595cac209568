"""Work that is linear in a large request, moved off the event loop to a thread.

One thread does all of it: work in Python holds the interpreter's lock, so a second thread would not
make it faster, but would make the event loop wait for two. Calls that hold the lock for long (a
parser in native code) are bounded by the limits of bodies, not by this.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

__all__ = ["LARGE_BYTES", "REQUEST_BYTES", "add_weight", "is_large", "offload"]

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 32 * 1024
"""Requests below this size take a few milliseconds at most, whatever they hold."""

REQUEST_BYTES: ContextVar[int] = ContextVar("request_bytes", default=0)
"""Size of the request that the running task answers, with what was loaded for it."""

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


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if not isinstance(value, list | tuple):
        return ()
    return value[: LARGE_BYTES // _VALUE_BYTES]


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-requests")
