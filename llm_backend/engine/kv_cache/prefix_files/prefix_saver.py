"""Saves prefixes of slots into files, one at a time, so that at most one write is pending.

A slot that is about to be overwritten is saved if no other write is pending. The others are saved
after a period without work, and at shutdown, most recently used first. Requests wait only for the
copy in memory.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from llm_backend.engine.kv_cache.blocks import plain_length
from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder
from llm_backend.engine.kv_cache.prefix_index import PrefixEntry
from llm_backend.engine.kv_cache.slot_allocation import SlotAllocation, SlotTokens
from llm_backend.engine.model import Model
from llm_backend.engine.statistics import Statistics

_log = logging.getLogger("llm_backend.engine.kv_cache.prefix_files")

_IDLE_S = 10.0  # idle time after which a conversation has likely paused
POLL_INTERVAL_S = 0.05  # interval at which an idle engine polls a pending read or write
_CLOSING_S = 3.0  # for all writes at shutdown: the owner kills the worker soon after


class PrefixSaver:
    """Saves the prefixes that have many tokens which are in no file yet."""

    def __init__(
        self,
        model: Model,
        cache: Cache,
        folder: PrefixFolder,
        statistics: Statistics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._cache = cache
        self._folder = folder
        self._statistics = statistics
        self._clock = clock
        self._writing: Future[PrefixEntry] | None = None
        # names of files that hold prefixes of slots; they are not evicted until the next work
        self._retained: set[str] = set()
        self._has_space = True  # False once a further file would evict a retained one
        self._worked_at = 0.0
        self._is_done = True  # True if nothing more is to be written before the next work

    def save_overwritten(self, allocation: SlotAllocation) -> None:
        """Saves the prefixes that a slot allocation is about to overwrite."""
        for slot in allocation.overwritten:
            self._save(slot)

    def record_work(self, now: float) -> None:
        """Records that the engine computes, which restarts the idle time."""
        self._finish_write()
        self._worked_at, self._is_done = now, False
        self._retained.clear()
        self._has_space = True

    def save_when_idle(self, now: float) -> None:
        """Begins to save the next prefix, if the engine has been idle for long enough."""
        self._finish_write()
        if self._is_done or self._writing or now - self._worked_at < _IDLE_S:
            return
        self._is_done = not self._save_next()

    def idle_timeout_s(self, now: float) -> float | None:
        """Returns the seconds until `save_when_idle` has work; None for never."""
        if self._writing is not None:
            return POLL_INTERVAL_S
        return None if self._is_done else max(0.0, self._worked_at + _IDLE_S - now)

    def close(self) -> None:
        """Saves as many prefixes as time allows."""
        until, self._is_done = self._clock() + _CLOSING_S, False
        self._wait(until)
        while self._writing is None and not self._is_done and self._clock() < until:
            self._is_done = not self._save_next()
            self._wait(until)

    def _save_next(self) -> bool:
        """Begins to save the most recently used slot that is not saved. Returns False if there is
        none. Files with prefixes of more recently used slots are not evicted."""
        return any(self._save(slot) for slot in self._cache.cached_slots)

    def _save(self, slot: SlotTokens) -> bool:
        """Begins to save the prefix of a slot. Returns False if it is not saved."""
        if (
            self._writing is not None
            or not self._has_space
            or not self._is_worth_saving(slot.tokens)
        ):
            return False
        if self._model.end(slot.slot) != len(slot.tokens):  # some of its cells have been removed
            return False
        state_bytes = self._model.state_bytes(slot.slot)
        if self._folder.exceeds_limit(slot.tokens, state_bytes):
            return False
        self._has_space = self._folder.has_room(
            slot.tokens, state_bytes, self._retained, can_roll_back=self._cache.can_roll_back
        )
        if not self._has_space:  # checked first, because a state can take as much memory as a model
            return False
        prefix = Prefix(tokens=list(slot.tokens), state=self._model.state(slot.slot))
        self._writing = self._folder.write(
            prefix, self._retained, can_roll_back=self._cache.can_roll_back
        )
        self._has_space = self._writing is not None
        return self._has_space

    def _is_worth_saving(self, tokens: list[int]) -> bool:
        minimum, index = self._folder.minimum_tokens, self._folder.index
        if len(tokens) < minimum or plain_length(tokens) < len(tokens):
            return False
        match = index.match(tokens, can_roll_back=self._cache.can_roll_back)
        if match is None or len(tokens) - match.tokens >= minimum:
            return True
        self._retained.add(match.entry.name)
        return False

    def _finish_write(self) -> None:
        """Handles the result of a finished write."""
        if self._writing is None or not self._writing.done():
            return
        writing, self._writing = self._writing, None
        try:
            entry = writing.result()
        except OSError as error:  # for example a full disk; the next work allows another write
            _log.warning("engine.prefix_not_written reason=%s", error.strerror)
            self._is_done = True
            return
        self._folder.index.add(entry)
        self._statistics.prefix_writes += 1

    def _wait(self, until: float) -> None:
        if self._writing is not None:
            wait([self._writing], max(0.0, until - self._clock()))
            self._finish_write()
