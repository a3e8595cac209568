"""Cell operations on the slots of a model and its draft model, as the scheduler decides."""

import logging
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.cache import SlotAllocation, SlotTokens
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
        # as far as is known: a failed truncation sets it to False
        self.can_truncate = model.can_roll_back or model.rollback_tokens > 0

    def prepare(self, admitted: AdmittedSequence) -> None:
        """Prepare the slot of a sequence: copy cells or restore a state, and truncate
        to its cached prefix."""
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
        """Restore a saved `state` of the tokens before position `end` into a slot. False if it
        could not be restored; the slot is empty then."""
        self._copy(allocation)
        return self._model.restore(allocation.slot, state, end)

    def encode_media(self, run: Run, scheduled: ScheduledTokens) -> None:
        """Encode and compute the next part of an image or audio. Raises `MediaError` or
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
        """Truncate the cells of a rejected draft (rollback)."""
        if self._model.truncate(slot, sequence.position(length)):
            return
        self.can_truncate = False
        self._model.truncate(slot, 0)
        if sequence.slot is None:
            self._scheduler.clear(slot)
        else:
            self._scheduler.restart(sequence)

    def empty_slot(self, save: Callable[[SlotTokens], None]) -> None:
        """Empty a slot after `save`, because the cells are exhausted. Raises `MemoryError` if there
        is none to empty."""
        emptied = self._scheduler.evict_or_preempt()
        if emptied is None:
            raise MemoryError("the cells do not hold even one sequence")
        save(emptied)
        self._model.truncate(emptied.slot, 0)

    def clear(self, slots: Iterable[int]) -> None:
        """Empty slots whose cells may be wrong."""
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
