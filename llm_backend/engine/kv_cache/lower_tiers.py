"""Lower tiers of the KV cache, as one facade for the engine: the host prefix cache, and prefix
files. A disabled tier does nothing."""

from collections.abc import Callable
from functools import partial

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache
from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder
from llm_backend.engine.kv_cache.prefix_files.prefix_restorer import (
    PrefixRestorer,
    RestorableSlots,
)
from llm_backend.engine.kv_cache.prefix_files.prefix_saver import POLL_INTERVAL_S, PrefixSaver
from llm_backend.engine.kv_cache.slot_allocation import SlotAllocation, SlotTokens
from llm_backend.engine.messages import PREFIX_BLOCK
from llm_backend.engine.model import Model
from llm_backend.engine.statistics import Statistics

_MEMORY_CHECK_S = 1.0  # interval of checks for free memory, which another model may need


def save_threshold(folder: PrefixFolder | None, host_cache: HostPrefixCache | None) -> int | None:
    """Minimum number of overwritten tokens for which a slot's prefix is saved; None if no tier is
    enabled."""
    if host_cache is not None:
        return PREFIX_BLOCK
    return None if folder is None else folder.minimum_tokens


class LowerTiers:
    """Moves prefixes between the slots, `host_cache` and `folder`; None disables a tier."""

    def __init__(
        self,
        model: Model,
        cache: Cache,
        slots: RestorableSlots,
        statistics: Statistics,
        folder: PrefixFolder | None,
        tokens_per_s: Callable[[], float | None],
        host_cache: HostPrefixCache | None = None,
    ) -> None:
        self._model = model
        self._host_cache = host_cache
        self._memory_checked_at = 0.0
        self._folder = folder
        if folder is None:
            return
        self._saver = PrefixSaver(model, cache, folder, statistics)
        self._restorer = PrefixRestorer(
            cache,
            slots,
            folder,
            statistics,
            save_overwritten=self.save_overwritten,
            tokens_per_s=tokens_per_s,
        )

    def status(self) -> dict[str, int]:
        """Number and total size of the states in memory and of the files, and counters."""
        status: dict[str, int] = {}
        if self._folder is not None:
            index = self._folder.index
            status |= {"prefix_files": len(index), "prefix_bytes": index.bytes}
        if (host_cache := self._host_cache) is not None:
            status |= {
                "prefix_ram_states": len(host_cache),
                "prefix_ram_bytes": host_cache.bytes,
                "prefix_ram_saves": host_cache.saves,
                "prefix_ram_restores": host_cache.restores,
                "prefix_ram_tokens": host_cache.restored_tokens,
            }
        return status

    def request(self, tokens: list[int]) -> None:
        """Requests a prefix file for a sequence that begins with `tokens`, if reading it is faster
        than prefill; the sequence waits for the file."""
        if self._folder is not None:
            self._restorer.request(tokens)

    def step(self, now: float, *, is_idle: bool) -> None:
        """Does the due work of the tiers, before slots are allocated; `is_idle` if there is no
        sequence."""
        if self._host_cache is not None and now >= self._memory_checked_at + _MEMORY_CHECK_S:
            self._memory_checked_at = now
            self._host_cache.release_memory()
        if self._folder is None:
            return
        self._restorer.step()
        if is_idle:
            self._saver.save_when_idle(now)
        else:
            self._saver.record_work(now)

    def save_overwritten(self, allocation: SlotAllocation) -> None:
        """Saves the prefixes that a slot allocation is about to overwrite."""
        for slot in allocation.overwritten:
            self.save_in_host_memory(slot)
        if self._folder is not None:
            self._saver.save_overwritten(allocation)

    def save_in_host_memory(self, slot: SlotTokens) -> None:
        """Saves the prefix of a slot that is about to be emptied."""
        if self._host_cache is None or not self._host_cache.can_save(slot.tokens):
            return
        if self._model.end(slot.slot) == len(slot.tokens):  # no cells were removed meanwhile
            self._host_cache.save(
                slot.tokens,
                self._model.state_bytes(slot.slot),
                partial(self._model.state, slot.slot),
            )

    def wait_for_read(self, seconds: float) -> None:
        """Waits at most `seconds` if a sequence waits for a file."""
        if self._folder is not None:
            self._restorer.wait_for_read(seconds)

    def idle_timeout_s(self, now: float) -> float | None:
        """Seconds until `step` has work even if no command arrives; None for never."""
        has_states = self._host_cache is not None and len(self._host_cache) > 0
        timeouts = [_MEMORY_CHECK_S] if has_states else []
        if self._folder is not None:
            idle_s = self._saver.idle_timeout_s(now)
            timeouts += [POLL_INTERVAL_S] if self._restorer.is_reading else []
            timeouts += [] if idle_s is None else [idle_s]
        return min(timeouts, default=None)

    def close(self) -> None:
        """Saves prefixes, as many as the time for a shutdown allows."""
        if self._folder is not None:
            self._saver.close()
            self._folder.close()
