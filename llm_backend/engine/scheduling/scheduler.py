"""Continuous batching: plans which tokens the next forward pass computes. Pure: no model, no clock,
no I/O.

Each pass has one budget of tokens. Decoding sequences (one uncomputed token) get theirs first, so
that a long prompt never stalls them. A grammar can force several next tokens of a sequence: they
are known without sampling, but a pass must compute them. Without unified cells, a sequence with a
few forced tokens counts as decoding, too: it gets one token a pass as long as others decode. The
rest of the budget is for chunked prefill (`prefill_chunks`).

Sequences without a slot are in the waiting queue. If no slot is free, the next interactive one
preempts a batch sequence that has computed enough new tokens since it got its slot.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.slot_allocation import SlotAllocation, SlotTokens
from llm_backend.engine.messages import Priority
from llm_backend.engine.scheduling.prefill_budget import PrefillLimits
from llm_backend.engine.scheduling.prefill_chunks import PrefillChunkPlanner
from llm_backend.engine.scheduling.waiting_queue import WaitingQueue
from llm_backend.engine.sequence import ScheduledTokens, Sequence

_OLDEST_MEDIA_EVERY = 4  # every fourth plan of media takes the oldest, whatever its priority
# Up to this many forced tokens are computed one a pass, beside other sequences: that is cheaper
# than a native batch of their own (measured at 8).
_MAX_FORCED_TOKENS = 8
_MIN_TOKENS_BEFORE_PREEMPTION = 64  # computed by a batch sequence since it got its slot
_UNLIMITED = PrefillLimits()


@dataclass(frozen=True, kw_only=True)
class AdmittedSequence:
    """A sequence, the slot that it gets or moves to, and the cell operations for that."""

    sequence: Sequence
    allocation: SlotAllocation


class Scheduler:
    """Owns the sequences from `add` to `remove`, and the slots of `cache`.

    `batch_tokens` is the budget of a pass, at least one token a slot. `logit_rows` limits how many
    positions of a pass have logits besides the last one of each sequence: prompt logprobs and
    drafts. Unified cells of `cache` suit GPUs, separate cells suit CPUs. With separate cells,
    llama.cpp computes equally many tokens of each sequence together: the tokens that one sequence
    has beyond the others cost a further native batch.
    """

    def __init__(self, *, cache: Cache, batch_tokens: int, logit_rows: int = 32) -> None:
        self._cache = cache
        self._batch_tokens = max(batch_tokens, cache.free_slots)
        self._close_after_tokens = (
            self._batch_tokens if cache.kv_unified else self._batch_tokens // 2
        )
        self._chunk_planner = PrefillChunkPlanner(
            batch_tokens=self._batch_tokens,
            close_after_tokens=self._close_after_tokens,
            logit_rows=logit_rows,
        )
        self._logit_rows = logit_rows
        self._move_threshold = cache.copy_threshold
        self._waiting_queue = WaitingQueue(cache)
        self._running: list[Sequence] = []
        self._media_by_priority = 0  # media planned by priority since the last one by age
        # cells ran out: no sequence is admitted until a running one has given up its slot
        self._is_out_of_cells = False

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to compute."""
        return self._waiting_queue.is_empty and not self._running

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that have a slot."""
        return tuple(self._running)

    @property
    def cell_tokens(self) -> int:
        """Number of tokens in cells, of running sequences and of cached prefixes."""
        return self._cache.cell_tokens

    @property
    def running_tokens(self) -> int:
        """Number of tokens in cells of running sequences."""
        return self._cache.running_tokens

    @property
    def prefill_tokens(self) -> int:
        """Number of prefilled tokens in the last planned pass."""
        return self._chunk_planner.prefill_tokens

    @property
    def has_long_chunk(self) -> bool:
        """True if the last planned pass has tokens of a long prompt."""
        return self._chunk_planner.has_long_chunk

    @property
    def free_slots(self) -> int:
        """Number of slots without a running sequence."""
        return self._cache.free_slots

    @property
    def can_admit(self) -> bool:
        """True if a sequence that waits for no prefix would get a slot at once."""
        return self._cache.free_slots > 0 and not self._is_out_of_cells

    def add(self, *sequences: Sequence) -> None:
        """Queues sequences, in order of arrival."""
        self._waiting_queue.add(*sequences)

    def remove(self, sequence: Sequence) -> None:
        """Removes a sequence that has finished, failed or been cancelled, from the queue or from
        its slot."""
        if sequence.slot is None:
            self._waiting_queue.remove(sequence)
            return
        self._cache.release(sequence.slot)
        self._running.remove(sequence)
        self._is_out_of_cells = False
        sequence.slot = None

    def admit(
        self, prepare: Callable[[AdmittedSequence], None] = lambda admitted: None
    ) -> list[AdmittedSequence]:
        """Gives slots to the next sequences of the waiting queue: free ones, and for an interactive
        sequence also that of a batch sequence, which is preempted. `prepare` is called for each
        sequence before a slot is chosen for the next one: a state that it saves may be restored for
        that one. After copies of cells, it stops once the admitted sequences fill the next pass."""
        admitted: list[AdmittedSequence] = []
        while not self._has_copied_enough(admitted) and (sequence := self._next()):
            allocation = self._cache.allocate(
                sequence.reusable_tokens,
                prompt_tokens=sequence.shared_tokens or max(0, sequence.prompt_tokens),
                is_shared=sequence.shared_tokens is not None,
            )
            assert allocation is not None, "a slot is free for the next sequence"
            self._start(sequence, allocation)
            admitted.append(AdmittedSequence(sequence=sequence, allocation=allocation))
            prepare(admitted[-1])
        return admitted

    def compact(self) -> list[AdmittedSequence]:
        """Moves a running sequence next to the others, if one of them may grow by many tokens."""
        if len(self._running) < 2:
            return []
        if all(item.room < self._move_threshold for item in self._running):
            return []
        move = self._cache.compact()
        if move is None:
            return []
        old_slot, allocation = move
        (sequence,) = (item for item in self._running if item.slot == old_slot)
        sequence.slot = allocation.slot
        return [AdmittedSequence(sequence=sequence, allocation=allocation)]

    def plan(self, limits: PrefillLimits = _UNLIMITED) -> list[ScheduledTokens]:
        """Plans the next pass, in the order of slots."""
        decode_limit = self._max_tokens_to_count_as_decoding()
        unfinished = [
            one for one in self._running if one.uncomputed_tokens and one.next_run is None
        ]
        decoding = [one for one in unfinished if _is_decoding(one, decode_limit)]
        prefilling = [one for one in unfinished if not _is_decoding(one, decode_limit)]
        scheduled = [ScheduledTokens(sequence, 1) for sequence in decoding]
        scheduled += self._chunk_planner.plan(
            prefilling,
            self._batch_tokens - len(decoding),
            limits,
            has_interactive_decoding=any(one.priority is Priority.INTERACTIVE for one in decoding),
        )
        return sorted(scheduled, key=lambda item: item.sequence.assigned_slot)

    def plan_media(self) -> ScheduledTokens | None:
        """Plans the computation of one image or audio file before the next pass: as much of it as a
        pass may hold. Images and audio cannot share a pass with text."""
        waiting = [sequence for sequence in self._running if sequence.next_run is not None]
        if not waiting:
            return None
        self._media_by_priority = (self._media_by_priority + 1) % _OLDEST_MEDIA_EVERY
        sequence = min(waiting, key=_priority_order if self._media_by_priority else _arrival)
        run = sequence.next_run
        assert run is not None, "only sequences with a media run were chosen from"
        remaining = run.end - sequence.computed
        return ScheduledTokens(
            sequence, remaining if run.part.is_non_causal else min(remaining, self._batch_tokens)
        )

    def draft_capacity(self, scheduled: list[ScheduledTokens]) -> int:
        """Number of draft tokens that fit into a pass besides `scheduled`."""
        tokens = sum(item.count for item in scheduled)
        rows = sum(len(item.output_positions) - item.needs_sampling for item in scheduled)
        return min(self._batch_tokens - tokens, self._logit_rows - rows)

    def complete_pass(self, scheduled: list[ScheduledTokens]) -> list[Sequence]:
        """Counts a computed pass. Returns the sequences without uncomputed tokens, which need a
        sampling step."""
        for item in scheduled:
            sequence, start = item.sequence, item.sequence.computed
            sequence.computed += item.count
            if sequence.slot is not None:
                self._cache.extend(sequence.slot, sequence.tokens[start : sequence.computed])
        return [item.sequence for item in scheduled if not item.sequence.uncomputed_tokens]

    def accept_draft(self, sequence: Sequence, draft: tuple[int, ...]) -> None:
        """Accepts drafted tokens of a sequence: their cells are computed already."""
        sequence.computed += len(draft)
        if sequence.slot is not None:
            self._cache.extend(sequence.slot, draft)

    def restart(self, sequence: Sequence) -> None:
        """Restarts a running sequence in its slot, because its cells are lost."""
        if sequence.slot is not None:
            self._cache.clear(sequence.slot)
        sequence.computed = 0
        sequence.cached_tokens = 0

    def shift(self, sequence: Sequence) -> None:
        """Drops the oldest tokens of a running sequence that fills its context, and queues it
        again. The remaining tokens have other positions then, so all of them are computed again.
        llama.cpp's context shift keeps the cells instead, and moves their positions."""
        self._requeue(sequence)
        sequence.shift()
        sequence.recompute_baseline = 0

    def evict_or_preempt(self) -> SlotTokens | None:
        """Frees cells when all are used: returns the slot to be emptied. Cached prefixes come
        first, then the newest of several running sequences, batch sequences before others. A
        preempted sequence is computed again when another one has ended. None if only one sequence
        is running."""
        return self._cache.evict_prefix() or self._preempt_for_cells()

    def clear(self, slot: int) -> None:
        """Records that the cells of a slot without a running sequence are lost."""
        self._cache.clear(slot)

    def _max_tokens_to_count_as_decoding(self) -> int:
        """Number of uncomputed tokens up to which a sequence counts as decoding: the number of
        sequences with one uncomputed token, at most 8. A native batch of its own for forced tokens
        would delay each of those sequences once; one token a pass delays this sequence once for
        each token. 1 with unified cells, where a pass is one native batch."""
        if self._cache.kv_unified:
            return 1
        return min(
            _MAX_FORCED_TOKENS,
            max(1, sum(sequence.uncomputed_tokens == 1 for sequence in self._running)),
        )

    def _has_copied_enough(self, admitted: list[AdmittedSequence]) -> bool:
        """True once cells were copied and the next pass has enough to do: short admitted sequences
        fill it, or two long ones were admitted. The rest are admitted before later passes: to copy
        their cells now would only delay this pass."""
        if not any(one.allocation.copies for one in admitted):
            return False
        short = [
            one for one in admitted if one.sequence.uncomputed_tokens <= self._close_after_tokens
        ]
        tokens = sum(one.sequence.uncomputed_tokens for one in short)
        return len(admitted) - len(short) > 1 or tokens >= self._close_after_tokens

    def _preempt_for_cells(self) -> SlotTokens | None:
        if len(self._running) < 2:
            return None
        slot = self._requeue(max(self._running, key=_priority_order))
        self._is_out_of_cells = True
        return self._cache.clear(slot)

    def _next(self) -> Sequence | None:
        """Takes the next sequence of the waiting queue, if a slot is free or a batch sequence can
        be preempted for it."""
        if self._waiting_queue.is_empty or self._is_out_of_cells:
            return None
        if self._cache.free_slots:
            return self._waiting_queue.take_next(self._running)
        preemptible = [sequence for sequence in self._running if _is_preemptible(sequence)]
        if not preemptible:
            return None
        sequence = self._waiting_queue.take_next_interactive(self._running)
        if sequence is not None:
            self._requeue(max(preemptible, key=_arrival))
        return sequence

    def _requeue(self, victim: Sequence) -> int:
        """Puts a running sequence back into the waiting queue, and returns its slot."""
        slot = victim.assigned_slot
        self.remove(victim)
        victim.recompute_baseline = max(victim.recompute_baseline, victim.computed)
        victim.computed = 0
        self._waiting_queue.put_back(victim)
        return slot

    def _start(self, sequence: Sequence, allocation: SlotAllocation) -> None:
        sequence.slot = allocation.slot
        sequence.computed = allocation.cached_tokens
        sequence.recompute_baseline = max(sequence.recompute_baseline, allocation.cached_tokens)
        if not sequence.has_started:
            sequence.cached_tokens = min(allocation.cached_tokens, sequence.prompt_tokens)
        sequence.has_started = True
        self._running.append(sequence)


def _is_decoding(sequence: Sequence, limit: int) -> bool:
    """True if the sequence gets one token in each pass."""
    return sequence.uncomputed_tokens <= (limit if sequence.generated else 1)


def _arrival(sequence: Sequence) -> float:
    return sequence.arrived_at


def _priority_order(sequence: Sequence) -> tuple[bool, float]:
    """Sort key of running sequences: interactive before batch ones, then the oldest first. The
    smallest is computed first, the largest preempted first."""
    return sequence.priority is Priority.BATCH, sequence.arrived_at


def _is_preemptible(sequence: Sequence) -> bool:
    """True if it is a batch sequence with enough new tokens: computed ones beyond those that were
    cached when it got its slot, or computed before an earlier preemption."""
    computed = sequence.computed - sequence.recompute_baseline
    return sequence.priority is Priority.BATCH and computed >= _tokens_before_preemption(sequence)


def _tokens_before_preemption(sequence: Sequence) -> int:
    """Number of new tokens after which a batch sequence may be preempted: enough to justify that
    its earlier tokens are computed again."""
    return max(_MIN_TOKENS_BEFORE_PREEMPTION, sequence.recompute_baseline // 2)
