"""Restores prefixes from files into slots, one at a time.

A file is read while passes go on; sequences that wait for it stay in the waiting queue. Its cells
are put into a free slot, as if a finished sequence had left them there, and the waiting sequences
use them as a cached prefix.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.kv_cache.prefix_files.prefix_file import BadPrefix, file_bytes
from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder, RestoredPrefix
from llm_backend.engine.kv_cache.prefix_index import PrefixMatch
from llm_backend.engine.kv_cache.slot_allocation import SlotAllocation
from llm_backend.engine.moving_average import moving_average
from llm_backend.engine.statistics import Statistics

_log = logging.getLogger("llm_backend.engine.kv_cache.prefix_files")
_READ_TIMEOUT_S = 5.0  # longest wait for one file: a slower disk may never answer
_SHARE = 0.3  # share of the newest cost in the moving average
_DECAY = 0.9  # factor by which a cost that was too high decays, until reading is tried again

Clock = Callable[[], float]


class ReadCosts:
    """Measured cost of reading. While it or the prefill speed is unknown, reading is tried."""

    def __init__(self) -> None:
        self._seconds_per_byte: float | None = None

    def record_read(self, size: int, seconds: float) -> None:
        """Updates the cost: a file of `size` bytes was restored in `seconds`."""
        newest = seconds / max(1, size)
        self._seconds_per_byte = moving_average(self._seconds_per_byte, newest, share=_SHARE)

    def is_worth(self, size: int, tokens: int, tokens_per_s: float | None) -> bool:
        """True if reading `size` bytes takes less time than computing `tokens`. Otherwise the cost
        is lowered a little, so that reading is tried again later."""
        if self._seconds_per_byte is None or tokens_per_s is None:
            return True
        if size * self._seconds_per_byte < tokens / tokens_per_s:
            return True
        self._seconds_per_byte *= _DECAY
        return False


@dataclass(frozen=True, kw_only=True)
class _PendingRead:
    """A file whose reading began at `started_at`."""

    name: str
    started_at: float
    future: "Future[RestoredPrefix]"


class RestorableSlots(Protocol):
    """The slots of a model, into which saved states can be restored."""

    def restore(self, allocation: SlotAllocation, state: NDArray[np.uint8], end: int) -> bool:
        """Restores a saved `state` of the tokens before position `end`. False if that fails."""


class PrefixRestorer:
    """Reads the files that sequences wait for. `save_overwritten` is called before a slot is
    filled; `tokens_per_s` returns the measured prefill speed, if any."""

    def __init__(
        self,
        cache: Cache,
        slots: RestorableSlots,
        folder: PrefixFolder,
        statistics: Statistics,
        *,
        save_overwritten: Callable[[SlotAllocation], None],
        tokens_per_s: Callable[[], float | None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._cache = cache
        self._slots = slots
        self._folder = folder
        self._statistics = statistics
        self._save_overwritten = save_overwritten
        self._tokens_per_s = tokens_per_s
        self._clock = clock
        self._costs = ReadCosts()
        self._requested: dict[str, list[int]] = {}  # by file: the prefix that sequences wait for
        self._pending: _PendingRead | None = None

    def request(self, tokens: list[int]) -> None:
        """Makes a prompt wait for a file that holds a prefix of it, if reading is faster than
        computing."""
        if self._is_stuck():
            return
        match = self._match(tokens)
        if match is None or not self._is_worth_reading(match, tokens):
            return
        name, prefix = match.entry.name, tokens[: match.tokens]
        self._requested[name] = max(self._requested.get(name, []), prefix, key=len)
        self._set_prefixes_being_restored()

    def step(self) -> None:
        """Puts a prefix that has been read into a free slot, if there is one, and begins to read
        the next."""
        pending = self._pending
        if pending is not None and pending.future.done() and self._cache.free_slots:
            self._pending = None
            self._finish(pending)
        elif self._is_stuck() and self._requested:
            _log.warning("engine.prefix_read_timeout file=%s", self._pending and self._pending.name)
            self._requested.clear()
            self._set_prefixes_being_restored()
        if self._pending is None:
            self._begin()

    def wait_for_read(self, seconds: float) -> None:
        """Waits until a file is read, at most `seconds`."""
        if self._pending is not None:
            wait([self._pending.future], seconds)

    @property
    def is_reading(self) -> bool:
        """True if a file is being read, or its cells wait for a slot."""
        return self._pending is not None

    def _begin(self) -> None:
        for name, tokens in list(self._requested.items()):
            if name in self._folder.index and self._gain(tokens) > 0:
                future = self._folder.read(name)
                self._pending = _PendingRead(name=name, started_at=self._clock(), future=future)
                return
            del self._requested[name]
            self._set_prefixes_being_restored()

    def _finish(self, pending: _PendingRead) -> None:
        prompt = self._requested.pop(pending.name, None)
        self._set_prefixes_being_restored()
        try:
            restored = pending.future.result()
        except FileNotFoundError:  # another process has removed it
            self._folder.remove(pending.name)
        except (OSError, BadPrefix) as error:
            _log.warning("engine.prefix_removed reason=%s", error)
            self._folder.remove(pending.name)
        else:
            if prompt is not None:
                self._restore(pending.name, restored, prompt)

    def _restore(self, name: str, restored: RestoredPrefix, prompt: list[int]) -> None:
        prefix, started_at = restored.prefix, self._clock()
        shared = common_prefix_length(prefix.tokens, prompt)
        if not self._cache.can_roll_back and shared < len(prefix.tokens):
            return
        if shared - self._cache.longest_prefix_in_memory(prompt) < self._cache.copy_threshold:
            return
        allocation = self._cache.allocate_restored(prefix.tokens)
        assert allocation is not None, "a slot is free, which `step` has checked"
        self._save_overwritten(allocation)
        if not self._slots.restore(allocation, prefix.state, len(prefix.tokens)):
            self._cache.clear(allocation.slot)
            _log.warning("engine.prefix_removed reason=the native code has refused the state")
            self._folder.remove(name)
            return
        size = file_bytes(len(prefix.tokens), prefix.state.size)
        self._costs.record_read(size, restored.seconds + self._clock() - started_at)
        self._statistics.prefix_reads += 1
        self._statistics.prefix_read_tokens += shared

    def _match(self, tokens: list[int]) -> PrefixMatch | None:
        return self._folder.index.match(tokens, can_roll_back=self._cache.can_roll_back)

    def _is_worth_reading(self, match: PrefixMatch, tokens: list[int]) -> bool:
        gain = self._gain(tokens[: match.tokens])
        if gain < self._folder.minimum_tokens:
            return False
        return self._costs.is_worth(match.entry.size, gain, self._tokens_per_s())

    def _gain(self, tokens: list[int]) -> int:
        """Returns the number of tokens that are neither in a slot nor in host memory."""
        return len(tokens) - self._cache.longest_prefix_in_memory(tokens)

    def _set_prefixes_being_restored(self) -> None:
        self._cache.prefixes_being_restored = tuple(self._requested.values())

    def _is_stuck(self) -> bool:
        pending = self._pending
        return (
            pending is not None
            and not pending.future.done()
            and self._clock() - pending.started_at > _READ_TIMEOUT_S
        )
