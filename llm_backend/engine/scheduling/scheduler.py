"""Continuous batching: plans which tokens the next forward pass computes. Pure: no model, no clock,
no I/O.

Each pass has one budget of tokens. Decoding sequences (one uncomputed token) get theirs first, so
that a long prompt never stalls them; together with others, so do sequences with a few uncomputed
tokens that a grammar has forced. The rest is chunked prefill: interactive and short prompts come
first, and a quarter is kept for the sequence that has waited longest. Where a token costs the same
in a small pass, no further prompt is added once half a budget of prompts completes its prefill: the
first to be done would only wait for the last. While interactive requests are expected, prompts
of batch requests get only a limited part.

Sequences without a slot are in the waiting queue. If the next one is interactive, a batch sequence
is preempted for it once it has computed its share of tokens.
"""

from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation
from llm_backend.engine.messages import Priority
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.scheduling.waiting_queue import WaitingQueue

__all__ = ["ScheduledTokens", "Scheduler", "SlotAdmission"]

_FAIR_EVERY = 4  # of so many pictures and sounds, one is chosen by age alone
# tokens that cost more in a native batch of their own than with other sequences, measured with 8
_FEW = 8
_BATCH_SHARE = 64  # tokens that a batch sequence computes before it may be preempted


@dataclass(frozen=True)
class ScheduledTokens:
    """Tokens of one sequence that the next pass computes: its next `count` tokens, and after its
    last one `draft`, speculative tokens for verification."""

    sequence: Sequence
    count: int
    draft: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute."""
        start = self.sequence.computed
        return [*self.sequence.tokens[start : start + self.count], *self.draft]

    @property
    def catches_up(self) -> bool:
        """True if the sequence has no uncomputed tokens after the pass, so that its next token
        is sampled."""
        return self.count == self.sequence.uncomputed_tokens

    @property
    def output_positions(self) -> list[int]:
        """Positions whose logits are needed: those that predict a prompt token if prompt
        logprobs are wanted, and the last one and the draft if the sequence catches up."""
        sequence, end = self.sequence, self.sequence.computed + self.count
        positions = []
        if sequence.needs_prompt_logits:
            positions = list(range(sequence.computed, min(end, sequence.prompt_tokens - 1)))
        if self.catches_up:
            positions += range(end - 1, end + len(self.draft))
        return positions


@dataclass(frozen=True, kw_only=True)
class SlotAdmission:
    """A sequence that got a slot, and the cell operations that the model must do for it."""

    sequence: Sequence
    placement: SlotAllocation


class Scheduler:
    """Owns the sequences from `add` to `remove`, and the slots of `cache`.

    `batch_tokens` is the budget of a pass, at least one token a slot. `logit_rows` limits how many
    positions of a pass have logits besides the last one of each sequence: prompt logprobs and
    drafts. `slots_apart`: each slot has cells of its own, as suits CPUs. There a token costs the
    same in a small pass as in a large one, and the tokens that one sequence computes beyond the
    others are a native batch of their own.
    """

    def __init__(
        self, *, cache: Cache, batch_tokens: int, logit_rows: int = 32, slots_apart: bool = False
    ) -> None:
        self._cache = cache
        self._slots_apart = slots_apart
        self._batch_tokens = max(batch_tokens, cache.free)
        self._enough = self._batch_tokens // 2 if slots_apart else self._batch_tokens
        self._logit_rows = logit_rows
        self._worth_moving = cache.worth_copying
        self._line = WaitingQueue(cache)
        self._running: list[Sequence] = []
        self._unfair = 0  # how many pictures were preferred since one was chosen by age
        # cells ran out: no sequence is admitted until a running one has ended
        self._is_crowded = False

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to compute."""
        return self._line.is_empty and not self._running

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that have a slot."""
        return tuple(self._running)

    @property
    def held_tokens(self) -> int:
        """Number of tokens in cells, of running sequences and of cached prefixes."""
        return self._cache.held_tokens

    @property
    def free_slots(self) -> int:
        """Number of slots without a running sequence."""
        return self._cache.free

    def add(self, *sequences: Sequence) -> None:
        """Queue sequences, in order of arrival."""
        self._line.add(*sequences)

    def remove(self, sequence: Sequence) -> None:
        """Remove a sequence that has finished, failed or been cancelled, from the queue or from
        its slot."""
        if sequence.slot is None:
            self._line.remove(sequence)
            return
        self._cache.release(sequence.slot)
        self._running.remove(sequence)
        self._is_crowded = False
        sequence.slot = None

    def admit(self) -> list[SlotAdmission]:
        """Give free slots to the next sequences of the waiting queue."""
        admitted: list[SlotAdmission] = []
        while not self._has_copied_enough(admitted) and (sequence := self._next()):
            placement = self._cache.place(sequence.reusable, asked=sequence.prompt_tokens)
            assert placement is not None, "a slot is free for who is next"
            self._start(sequence, placement)
            admitted.append(SlotAdmission(sequence=sequence, placement=placement))
        return admitted

    def compact(self) -> list[SlotAdmission]:
        """Move a running sequence next to the others, if enough of its tokens are still to come."""
        if len(self._running) < 2:
            return []
        if all(item.limit - len(item.tokens) < self._worth_moving for item in self._running):
            return []
        move = self._cache.compact()
        if move is None:
            return []
        left, placement = move
        (sequence,) = (item for item in self._running if item.slot == left)
        sequence.slot = placement.slot
        return [SlotAdmission(sequence=sequence, placement=placement)]

    def plan(self, batch_prefill_tokens: int | None = None) -> list[ScheduledTokens]:
        """Plan the next pass, in the order of slots; `batch_prefill_tokens` limits the prompt
        tokens of batch requests."""
        few = self._few()
        going = [one for one in self._running if one.uncomputed_tokens and one.next_run is None]
        targets = [one for one in going if _keeps_step(one, few)]
        readers = [one for one in going if not _keeps_step(one, few)]
        work = [ScheduledTokens(sequence, 1) for sequence in targets]
        budget = self._batch_tokens - len(targets)
        work += self._shares(
            readers, budget, budget if batch_prefill_tokens is None else batch_prefill_tokens
        )
        return sorted(work, key=lambda item: item.sequence.slot or 0)

    def plan_media(self) -> ScheduledTokens | None:
        """Plan the computation of a picture or a sound before the next pass, with which it
        cannot be mixed: as much of the first one as a pass may hold."""
        waiting = [sequence for sequence in self._running if sequence.next_run is not None]
        if not waiting:
            return None
        self._unfair = (self._unfair + 1) % _FAIR_EVERY
        sequence = min(waiting, key=_comes_first if self._unfair else _arrival)
        run = sequence.next_run
        assert run is not None, "it was chosen for that"
        left = run.end - sequence.computed
        return ScheduledTokens(
            sequence, left if run.part.is_whole else min(left, self._batch_tokens)
        )

    def room(self, work: list[ScheduledTokens]) -> int:
        """Number of draft tokens for which a pass has room besides `work`."""
        tokens = sum(item.count for item in work)
        rows = sum(len(item.output_positions) - item.catches_up for item in work)
        return min(self._batch_tokens - tokens, self._logit_rows - rows)

    def settle(self, work: list[ScheduledTokens]) -> list[Sequence]:
        """Count a computed pass. Returns the sequences without uncomputed tokens, which need a
        sampling step."""
        for item in work:
            sequence, start = item.sequence, item.sequence.computed
            sequence.computed += item.count
            if sequence.slot is not None:
                self._cache.extend(sequence.slot, sequence.tokens[start : sequence.computed])
        return [item.sequence for item in work if not item.sequence.uncomputed_tokens]

    def keep(self, sequence: Sequence, draft: tuple[int, ...]) -> None:
        """Accept drafted tokens of a sequence: their cells are computed already."""
        sequence.computed += len(draft)
        if sequence.slot is not None:
            self._cache.extend(sequence.slot, draft)

    def recompute(self, sequence: Sequence) -> None:
        """Restart a running sequence in its slot, as its cells are lost."""
        if sequence.slot is not None:
            self._cache.forget(sequence.slot)
        sequence.computed = 0
        sequence.cached_tokens = 0

    def make_room(self) -> int | None:
        """Evict cells as there are none left, and return the slot to be emptied. Cached prefixes
        come first, then the newest of several running sequences, batch ones before others; such
        a sequence is computed again when another one has ended. None if only one sequence is
        left."""
        slot = self._cache.evict()
        return self._preempt() if slot is None else slot

    def forget(self, slot: int) -> None:
        """Note that the cells of a slot without a running sequence are lost."""
        self._cache.forget(slot)

    def _few(self) -> int:
        """Number of uncomputed tokens up to which a decoding sequence gets one token as the
        others do."""
        if not self._slots_apart:
            return 1
        return min(_FEW, max(1, sum(sequence.uncomputed_tokens == 1 for sequence in self._running)))

    def _has_copied_enough(self, admitted: list[SlotAdmission]) -> bool:
        """True if cells were copied for as many sequences as complete their prefill in the
        next pass, or for two that do not. For other sequences cells are copied before the
        pass that computes them, so that no request waits for that now."""
        if not any(one.placement.copies for one in admitted):
            return False
        short = [one for one in admitted if one.sequence.uncomputed_tokens <= self._enough]
        tokens = sum(one.sequence.uncomputed_tokens for one in short)
        return len(admitted) - len(short) > 1 or tokens >= self._enough

    def _preempt(self) -> int | None:
        if len(self._running) < 2:
            return None
        slot = self._set_aside(max(self._running, key=_can_leave))
        self._cache.forget(slot)
        self._is_crowded = True
        return slot

    def _next(self) -> Sequence | None:
        """Take the next sequence of the waiting queue, if a slot is free or a batch sequence can
        be preempted for it."""
        if self._line.is_empty or self._is_crowded:
            return None
        if self._cache.free:
            return self._line.take_next(self._running)
        sated = [sequence for sequence in self._running if _is_sated(sequence)]
        if not sated:
            return None
        sequence = self._line.take_next_interactive(self._running)
        if sequence is not None:
            self._set_aside(max(sated, key=lambda one: one.arrived_at))
        return sequence

    def _set_aside(self, victim: Sequence) -> int:
        """Preempt a running sequence: put it back into the waiting queue, and return its slot."""
        slot = victim.slot
        assert slot is not None, "who runs has a slot"
        self.remove(victim)
        victim.reached = max(victim.reached, victim.computed)
        victim.computed = 0
        self._line.put_back(victim)
        return slot

    def _start(self, sequence: Sequence, placement: SlotAllocation) -> None:
        sequence.slot = placement.slot
        sequence.computed = placement.keep
        sequence.reached = max(sequence.reached, placement.keep)
        if not sequence.has_started:
            sequence.cached_tokens = min(placement.keep, sequence.prompt_tokens)
        sequence.has_started = True
        self._running.append(sequence)

    def _shares(self, readers: list[Sequence], budget: int, patient: int) -> list[ScheduledTokens]:
        """Divide `budget` among prefilling sequences, with at most `patient` of it for batch
        requests. Interactive prompts that were not started get nothing once enough of them
        complete their prefill."""
        if not readers or budget <= 0:
            return []
        oldest = min(readers, key=lambda sequence: sequence.arrived_at)
        shares, rows, ended = dict.fromkeys(readers, 0), self._logit_rows, 0
        in_turn = sorted(
            readers,
            key=lambda reader: (reader.priority is Priority.BATCH, reader.uncomputed_tokens),
        )
        for sequence, most in [(oldest, max(1, budget // 4)), *((one, budget) for one in in_turn)]:
            is_patient, had = sequence.priority is Priority.BATCH, shares[sequence]
            if ended >= self._enough and not is_patient and not sequence.generated:
                continue
            wanted = self._wanted(sequence, rows + had) - had
            share = min(wanted, most, budget, patient if is_patient else budget)
            rows -= share if sequence.needs_prompt_logits else 0
            patient -= share if is_patient else 0
            budget -= share
            shares[sequence] = had + share
            if share and shares[sequence] == sequence.uncomputed_tokens and not sequence.generated:
                ended += shares[sequence]
        return [ScheduledTokens(sequence, share) for sequence, share in shares.items() if share]

    def _wanted(self, sequence: Sequence, rows: int) -> int:
        return (
            min(sequence.uncomputed_tokens, rows)
            if sequence.needs_prompt_logits
            else sequence.ahead
        )


def _keeps_step(sequence: Sequence, few: int) -> bool:
    """True if the sequence gets one token in each pass."""
    return sequence.uncomputed_tokens <= (few if sequence.generated else 1)


def _arrival(sequence: Sequence) -> float:
    return sequence.arrived_at


def _comes_first(sequence: Sequence) -> tuple[bool, float]:
    return sequence.priority is Priority.BATCH, sequence.arrived_at


def _is_sated(sequence: Sequence) -> bool:
    """True if it is a batch sequence that has computed its share since it got its slot."""
    has_had = sequence.computed - sequence.reached
    return sequence.priority is Priority.BATCH and has_had >= _share(sequence)


def _share(sequence: Sequence) -> int:
    """Number of tokens that a batch sequence computes before it may be preempted: enough to be
    worth computing its evicted tokens again."""
    return max(_BATCH_SHARE, sequence.reached // 2)


def _can_leave(sequence: Sequence) -> tuple[bool, float]:
    """Sort key of preemption; the largest leaves first: batch sequences, then the newest."""
    return sequence.priority is Priority.BATCH, sequence.arrived_at
