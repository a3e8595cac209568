"""Offloads work that is linear in a large request from the event loop to a thread.

There is one thread, besides those for schemas and media. Python code holds the interpreter lock,
so a second thread would not be faster, and the event loop would wait for two. Calls that hold the
lock for long (a native parser) are bounded by the limits on bodies instead.
"""

import asyncio
import base64
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Any, ParamSpec, TypeVar

from llm_backend.operating_system import c_function

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 32 * 1024
"""Requests below this size take a few milliseconds at most, except for schemas, which have
`offload_schema`."""

REQUEST_BYTES: ContextVar[int] = ContextVar("request_bytes", default=0)
"""Size of the current request, including rows that were loaded for it."""

_TRIM_BYTES = 256 * 1024
_TRIM_DELAY_S = 1.0
_BASE64_BLOCK = 3 * 256 * 1024  # three bytes are four characters
_VALUE_BYTES = 16  # size of a value beside its text
_MEDIA_THREADS = 2  # decoding an image may take some hundred megabytes


def is_request_large() -> bool:
    """True if the current request is so large that its work is offloaded."""
    return REQUEST_BYTES.get() >= LARGE_BYTES


async def offload(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Does the work, inline for a small request, otherwise in the thread; returns its result."""
    if not is_request_large():
        return work(*args, **kwargs)
    run = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_thread(), run)


async def offload_schema(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Does work on a schema, which may take long even for a small request, in the thread for
    schemas; returns its result. Budgets bound calls that hold the interpreter lock."""
    run = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_schema_thread(), run)


async def offload_media(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Decodes an image or audio in one of the two threads for media; returns the result. A request
    that is cancelled meanwhile keeps its thread until the work ends."""
    run = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_media_threads(), run)


async def base64_text(content: bytes) -> str:
    """Encodes bytes; long ones in the thread, in blocks between which the event loop can run."""
    if len(content) < LARGE_BYTES:
        return base64.b64encode(content).decode()
    return await asyncio.get_running_loop().run_in_executor(_thread(), _base64_blocks, content)


def _base64_blocks(content: bytes) -> str:
    blocks = range(0, len(content), _BASE64_BLOCK)
    return b"".join(
        base64.b64encode(content[start : start + _BASE64_BLOCK]) for start in blocks
    ).decode("ascii")


def add_request_bytes(*values: Any) -> None:  # Any: JSON values
    """Adds loaded values to the size of the current request; stops counting once it is large."""
    size, unread = REQUEST_BYTES.get(), list(values)
    while unread and size < LARGE_BYTES:
        value = unread.pop()
        size += len(value) if isinstance(value, str) else _VALUE_BYTES
        unread += _children(value)
    REQUEST_BYTES.set(size)


def schedule_memory_trim() -> None:
    """Schedules `trim_memory` after a very large request. Requests that end within the delay share
    one call."""
    if REQUEST_BYTES.get() >= _TRIM_BYTES:
        _memory_trimmer().schedule()


def trim_memory() -> None:
    """Returns fragmented free memory to the system, in some milliseconds; only glibc can."""
    malloc_trim = c_function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


class _MemoryTrimmer:
    def __init__(self) -> None:
        self._is_due = False

    def schedule(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._trim)

    def _trim(self) -> None:
        self._is_due = False
        _thread().submit(trim_memory)


@cache
def _memory_trimmer() -> _MemoryTrimmer:
    return _MemoryTrimmer()


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if not isinstance(value, list | tuple):
        return ()
    return value[: LARGE_BYTES // _VALUE_BYTES]


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-requests")


@cache
def _schema_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="schemas")


@cache
def _media_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=_MEDIA_THREADS, thread_name_prefix="media")
