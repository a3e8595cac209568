"""What the engine asks of kept prefixes, whether any are kept or not."""

from collections.abc import Callable

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation
from llm_backend.engine.kv_cache.prefix_files.folder import PrefixFolder
from llm_backend.engine.kv_cache.prefix_files.restoring import PrefixRestorer
from llm_backend.engine.kv_cache.prefix_files.saving import LOOKED_S, PrefixSaver
from llm_backend.engine.kv_cache.slot_cells import SlotCells
from llm_backend.engine.model import Model
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.statistics import Statistics

__all__ = ["Prefixes"]


class Prefixes:
    """Carries prefixes between the slots and `folder`; without one it does nothing."""

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
        self._keeping = PrefixSaver(model, cache, folder, statistics)
        self._recalling = PrefixRestorer(
            cache,
            slots,
            folder,
            statistics,
            overwritten=self._keeping.overwritten,
            tokens_per_s=tokens_per_s,
        )

    def status(self) -> dict[str, int]:
        """How many files there are, and how large they are together."""
        index = self._folder.index if self._folder else ()
        size = self._folder.index.bytes if self._folder else 0
        return {"prefix_files": len(index), "prefix_bytes": size}

    def want(self, sequence: Sequence) -> None:
        """A sequence waits for a slot: let it wait for a file too, if that is faster."""
        if self._folder is not None:
            text = sequence.reusable
            self._recalling.want(text[: sequence.runs[0].start] if sequence.runs else text)

    def turn(self, now: float, *, is_idle: bool) -> None:
        """Before sequences get their slots; `is_idle` if there is none."""
        if self._folder is None:
            return
        self._recalling.turn()
        if is_idle:
            self._keeping.rest(now)
        else:
            self._keeping.work(now)

    def overwritten(self, placement: SlotAllocation) -> None:
        """What a placement overwrites is about to be lost."""
        if self._folder is not None:
            self._keeping.overwritten(placement)

    def rest(self, seconds: float) -> None:
        """Wait a moment if somebody waits for a file."""
        if self._folder is not None:
            self._recalling.rest(seconds)

    def rests_for_s(self, now: float) -> float | None:
        """After how long there is something to do though nobody comes; None for never."""
        if self._folder is None:
            return None
        return LOOKED_S if self._recalling.is_reading else self._keeping.rests_for_s(now)

    def close(self) -> None:
        """Write what there is time for."""
        if self._folder is not None:
            self._keeping.close()
            self._folder.close()
