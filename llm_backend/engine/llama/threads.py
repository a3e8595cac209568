"""Thread count of a context's passes: as configured, or learnt from the cost of passes."""

import logging
import time
from collections.abc import Callable

import llama_cpp as native

from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import Start
from llm_backend.engine.thread_count import ThreadCount
from llm_backend.operating_system import usable_cores

_log = logging.getLogger("llm_backend.engine.threads")

_TINY_BYTES = 16 << 20  # of weights; a pass of one token takes less than a millisecond


def first_thread_count(start: Start, weights_bytes: int) -> int:
    """Thread count of a context's first pass. A tiny model's pass is over before a second thread
    has started, so it has one unless the count was configured."""
    if start.threads is not None:
        return start.threads
    return 1 if weights_bytes <= _TINY_BYTES else usable_cores()


class PassThreads:
    """Thread count of a context: set before its passes, and learnt from them if `is_learning`."""

    def __init__(self, context: Handle, count: int, *, is_learning: bool) -> None:
        self._context = context
        self._current = count
        self._count = ThreadCount(count) if is_learning and count > 1 else None

    def compute(self, tokens: int, native_pass: Callable[[], int]) -> int:
        """Run a pass of this number of tokens; returns its status."""
        if self._count is None:
            return native_pass()
        self._set_count(self._count.current)
        started_at, processor_started_s = time.monotonic(), time.process_time()
        status = native_pass()
        if not status:
            seconds, processor_s = (
                time.monotonic() - started_at,
                time.process_time() - processor_started_s,
            )
            self._count.record_pass(tokens, seconds, processor_s)
        return status

    def _set_count(self, count: int) -> None:
        if count == self._current:
            return
        _log.debug("engine.threads count=%d before=%d", count, self._current)
        native.llama_set_n_threads(self._context, count, count)
        self._current = count
