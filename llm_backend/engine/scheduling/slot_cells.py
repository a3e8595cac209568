"""Operations on the KV cells of a model's slots and of its drafter, as the scheduler decides."""

import logging
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.slot_allocation import SlotAllocation, SlotTokens
from llm_backend.engine.media_runs import Run
from llm_backend.engine.model import Model
from llm_backend.engine.scheduling.scheduler import AdmittedSequence, Scheduler
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.draft_source import DraftSource

_log = logging.getLogger("llm_backend.engine.kv_cache")


class SlotCells:
    """Applies the scheduler's decisions to the KV cells, and reports failed operations to it."""

    def __init__(self, model: Model, scheduler: Scheduler, drafter: DraftSource | None) -> None:
        self._model = model
        self._scheduler = scheduler
        self._drafter = drafter
        self.can_truncate = model.can_roll_back or model.rollback_tokens > 0  # until one fails

    def prepare(self, admitted: AdmittedSequence) -> None:
        """Prepares the slot of a sequence: copies cells or restores a state, then truncates the
        slot to its cached prefix."""
        sequence, allocation = admitted.sequence, admitted.allocation
        self._copy(allocation)
        restored = allocation.restored
        if restored is not None and not self._model.restore(
            allocation.slot, restored.state, len(restored.tokens)
        ):
            _log.warning("engine.prefix_not_restored tokens=%s", len(restored.tokens))
            self._scheduler.restart(sequence)
            return
        if not self._model.truncate(allocation.slot, sequence.position(allocation.cached_tokens)):
            self._model.truncate(allocation.slot, 0)
            self._scheduler.restart(sequence)

    def restore(self, allocation: SlotAllocation, state: NDArray[np.uint8], end: int) -> bool:
        """Restores a saved `state` of the tokens before position `end` into a slot. If that fails,
        returns False and leaves the slot empty."""
        self._copy(allocation)
        return self._model.restore(allocation.slot, state, end)

    def encode_media(self, run: Run, scheduled: ScheduledTokens) -> None:
        """Encodes and computes the next part of an image or audio. Raises `MediaError` or
        `CellsExhausted`."""
        sequence = scheduled.sequence
        self._model.encode_media(
            run,
            slot=sequence.assigned_slot,
            position=sequence.position(run.start),
            first=sequence.computed - run.start,
            count=scheduled.count,
        )

    def truncate(self, sequence: Sequence, slot: int, length: int) -> None:
        """Rolls a slot back to `length` tokens, without those of a rejected draft. If the model
        cannot, the sequence is computed again."""
        if self._model.truncate(slot, sequence.position(length)):
            return
        self.can_truncate = False
        self._model.truncate(slot, 0)
        if sequence.slot is None:
            self._scheduler.clear(slot)
        else:
            self._scheduler.restart(sequence)

    def empty_slot(self, save: Callable[[SlotTokens], None]) -> None:
        """Frees cells: evicts or preempts a slot, and calls `save` before its cells are dropped.
        Raises `MemoryError` if there is no slot to empty."""
        emptied = self._scheduler.evict_or_preempt()
        if emptied is None:
            raise MemoryError("the cells do not hold even one sequence")
        save(emptied)
        self._model.truncate(emptied.slot, 0)

    def clear(self, slots: Iterable[int]) -> None:
        """Empties slots whose cells may be wrong."""
        for slot in slots:
            self._model.truncate(slot, 0)
            self._scheduler.clear(slot)
            if self._drafter is not None:
                self._drafter.clear(slot)

    def _copy(self, allocation: SlotAllocation) -> None:
        for copy in allocation.copies:
            self._model.copy(copy.source, copy.target)
            if self._drafter is not None:
                self._drafter.copy(copy.source, copy.target)
