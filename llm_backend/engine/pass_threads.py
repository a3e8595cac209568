"""Thread count of a model's passes: as configured, or learnt from the cost of passes."""

import logging
import time
from collections.abc import Callable

from llm_backend.engine.messages import LoadModel
from llm_backend.engine.thread_count_tuner import ThreadCountTuner
from llm_backend.operating_system import usable_cores

_log = logging.getLogger("llm_backend.engine.threads")

_TINY_BYTES = 16 << 20  # of weights: a pass of one token takes less than a millisecond


def first_thread_count(config: LoadModel, weights_bytes: int) -> int:
    """Thread count of a model's first pass. A tiny model's pass is over before a second thread has
    started, so it has one unless the count was configured."""
    if config.threads is not None:
        return config.threads
    return 1 if weights_bytes <= _TINY_BYTES else usable_cores()


class PassThreads:
    """Thread count of passes: `count` at first, then tuned by the cost of passes if `is_learning`.
    `set_count` is called before a pass whose count differs from that of the last one."""

    def __init__(
        self, count: int, set_count: Callable[[int], object], *, is_learning: bool
    ) -> None:
        self._current = count
        self._apply_count = set_count
        self._tuner = ThreadCountTuner(count) if is_learning and count > 1 else None

    def compute(self, tokens: int | Callable[[], int], native_pass: Callable[[], int]) -> int:
        """Runs a pass of this number of tokens and returns its status, 0 for success. The tokens
        may be counted after the pass."""
        if self._tuner is None:
            return native_pass()
        self._set_count(self._tuner.current)
        started_at, cpu_started_s = time.monotonic(), time.process_time()
        status = native_pass()
        if not status:
            seconds, cpu_s = (
                time.monotonic() - started_at,
                time.process_time() - cpu_started_s,
            )
            size = tokens if isinstance(tokens, int) else tokens()
            self._tuner.record_pass(size, seconds, cpu_s)
        return status

    def _set_count(self, count: int) -> None:
        if count == self._current:
            return
        _log.debug("engine.threads count=%d before=%d", count, self._current)
        self._apply_count(count)
        self._current = count
