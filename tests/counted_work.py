"""The work of a call, counted: the same on every machine, however busy it is."""

import sys
from collections.abc import Callable, Sized
from types import BuiltinFunctionType, FrameType
from typing import Any


def count_work(call: Callable[[], object]) -> int:
    """The operations of the interpreter in a call, and for each call of a container's or a text's
    native method its length: what such a method may read."""
    counted = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal counted
        if event == "c_call" and isinstance(arg, BuiltinFunctionType) and arg.__name__ in _LINEAR:
            counted += len(arg.__self__) if isinstance(arg.__self__, Sized) else 0

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return counted


def growth(make: Callable[[int], Callable[[], object]], size: int) -> float:
    """Ratio of the work at twice the size to that at the size."""
    make(size)()  # what is computed only once
    return count_work(make(2 * size)) / count_work(make(size))


_LINEAR = frozenset({"count", "index", "remove", "copy", "insert", "find", "replace", "split"})
