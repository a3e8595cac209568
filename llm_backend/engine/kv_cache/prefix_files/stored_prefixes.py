"""Facade of the prefix files for the engine; it does nothing if they are disabled."""

from collections.abc import Callable

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation
from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder
from llm_backend.engine.kv_cache.prefix_files.prefix_restorer import PrefixRestorer
from llm_backend.engine.kv_cache.prefix_files.prefix_saver import POLL_INTERVAL_S, PrefixSaver
from llm_backend.engine.kv_cache.slot_cells import SlotCells
from llm_backend.engine.model import Model
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.statistics import Statistics

__all__ = ["StoredPrefixes"]


class StoredPrefixes:
    """Moves prefixes between the slots and `folder`; without a folder it does nothing."""

    def __init__(
        self,
        model: Model,
        cache: Cache,
        slots: SlotCells,
        statistics: Statistics,
        folder: PrefixFolder | None,
        tokens_per_s: Callable[[], float | None],
    ) -> None:
        self._folder = folder
        if folder is None:
            return
        self._saver = PrefixSaver(model, cache, folder, statistics)
        self._restorer = PrefixRestorer(
            cache,
            slots,
            folder,
            statistics,
            save_overwritten=self._saver.save_overwritten,
            tokens_per_s=tokens_per_s,
        )

    def status(self) -> dict[str, int]:
        """Number and total size of the files."""
        index = self._folder.index if self._folder else ()
        size = self._folder.index.bytes if self._folder else 0
        return {"prefix_files": len(index), "prefix_bytes": size}

    def request(self, sequence: Sequence) -> None:
        """Let a waiting sequence also wait for a file, if that is faster."""
        if self._folder is not None:
            text = sequence.reusable
            self._restorer.request(text[: sequence.runs[0].start] if sequence.runs else text)

    def turn(self, now: float, *, is_idle: bool) -> None:
        """Called in each turn before slots are allocated; `is_idle` if there is no sequence."""
        if self._folder is None:
            return
        self._restorer.turn()
        if is_idle:
            self._saver.save_when_idle(now)
        else:
            self._saver.record_work(now)

    def save_overwritten(self, allocation: SlotAllocation) -> None:
        """Save the prefixes that a slot allocation is about to overwrite."""
        if self._folder is not None:
            self._saver.save_overwritten(allocation)

    def wait_for_read(self, seconds: float) -> None:
        """Wait a moment if a sequence waits for a file."""
        if self._folder is not None:
            self._restorer.wait_for_read(seconds)

    def idle_timeout_s(self, now: float) -> float | None:
        """Seconds until there is something to do without a command; None for never."""
        if self._folder is None:
            return None
        return POLL_INTERVAL_S if self._restorer.is_reading else self._saver.idle_timeout_s(now)

    def close(self) -> None:
        """Save prefixes for which there is time."""
        if self._folder is not None:
            self._saver.close()
            self._folder.close()
