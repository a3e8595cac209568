"""The slots of a model, and of its draft model, kept as the scheduler has them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.cache import SlotAllocation
from llm_backend.engine.model import Model
from llm_backend.engine.prompt.media_runs import Run
from llm_backend.engine.scheduling.scheduler import ScheduledTokens, Scheduler, SlotAdmission
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.speculation.draft_model import Drafter

__all__ = ["SlotCells"]


class SlotCells:
    """Does to the cells what the scheduler has decided, and tells it where that cannot be done."""

    def __init__(self, model: Model, scheduler: Scheduler, drafter: Drafter | None) -> None:
        self._model = model
        self._scheduler = scheduler
        self._drafter = drafter
        self.can_be_cut = model.can_roll_back  # as far as is known: it may turn out otherwise

    def place(self, admitted: SlotAdmission) -> None:
        """Give a sequence its slot, with what is computed of it already."""
        sequence, placement = admitted.sequence, admitted.placement
        self._copy(placement)
        if not self._model.truncate(placement.slot, sequence.position(placement.keep)):
            self._model.truncate(placement.slot, 0)
            self._scheduler.recompute(sequence)

    def fill(self, placement: SlotAllocation, state: NDArray[np.uint8], end: int) -> bool:
        """Give a slot what another one held up to the position `end`. False: that cannot be had;
        the slot is empty."""
        self._copy(placement)
        return self._model.restore(placement.slot, state, end)

    def take_in(self, run: Run, work: ScheduledTokens) -> None:
        """Compute what comes next of a picture or a sound. Raises `MediaError` or `NoRoom`."""
        sequence, slot = work.sequence, work.sequence.slot
        assert slot is not None, "who is planned has a slot"
        self._model.take_in(
            run,
            slot=slot,
            position=sequence.position(run.start),
            first=sequence.computed - run.start,
            count=work.count,
        )

    def cut(self, sequence: Sequence, slot: int, length: int) -> None:
        """Forget the cells of a draft that did not come next."""
        if self._model.truncate(slot, sequence.position(length)):
            return
        self.can_be_cut = False
        self._model.truncate(slot, 0)
        if sequence.slot is None:
            self._scheduler.forget(slot)
        else:
            self._scheduler.recompute(sequence)

    def make_room(self) -> None:
        """Empty one, for those at work have no cells left. Raises `MemoryError` if there is none
        to empty."""
        slot = self._scheduler.make_room()
        if slot is None:
            raise MemoryError("the cells do not hold even one sequence")
        self._model.truncate(slot, 0)

    def forget(self, slots: Iterable[int]) -> None:
        """Nothing that these hold is believed."""
        for slot in slots:
            self._model.truncate(slot, 0)
            self._scheduler.forget(slot)
            if self._drafter is not None:
                self._drafter.forget(slot)

    def _copy(self, placement: SlotAllocation) -> None:
        for copy in placement.copies:
            self._model.copy(copy.source, copy.target)
            if self._drafter is not None:
                self._drafter.copy(copy.source, copy.target)
