"""What the next forward pass computes. Pure: no model, no clock, no I/O.

Each pass has one budget of tokens. Sequences one token behind get theirs first, so that a long
prompt never stalls those already talking, and in company so do those a few tokens behind, to whom a
grammar left no choice. What remains goes to those who catch up with a prompt, interactive ones and
short ones first, a quarter of it kept for the one who waits longest. Where a token costs the same
in a small pass, prompts of half a budget that come to their end are enough for one: with more of
them the first to be done would only wait for the last. Where somebody may come who cannot wait for
long, prompts of batch work get only so much of it.

Who waits for a slot stands in the line. If the next one is interactive, a batch sequence has to
leave its slot for it once it has had a share of computing.
"""

from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation
from llm_backend.engine.messages import Priority
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.scheduling.waiting_queue import WaitingQueue

__all__ = ["ScheduledTokens", "Scheduler", "SlotAdmission"]

_FAIR_EVERY = 4  # of so many pictures and sounds, one is chosen by age alone
_FEW = 8  # tokens that cost more in a native batch of their own than in company, measured with 8
_BATCH_SHARE = 64  # tokens that a batch sequence goes on by before it may have to leave its slot


@dataclass(frozen=True)
class ScheduledTokens:
    """Compute the next `count` tokens of `sequence`, and after its last one `draft`, which may turn
    out to come next."""

    sequence: Sequence
    count: int
    draft: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """What is computed."""
        start = self.sequence.computed
        return [*self.sequence.tokens[start : start + self.count], *self.draft]

    @property
    def catches_up(self) -> bool:
        """Whether the sequence is due for a next token then."""
        return self.count == self.sequence.uncomputed_tokens

    @property
    def output_positions(self) -> list[int]:
        """The positions whose logits are wanted: those that predict a prompt token when asked for,
        and the last one and the draft when the sequence has caught up."""
        sequence, end = self.sequence, self.sequence.computed + self.count
        positions = []
        if sequence.needs_prompt_logits:
            positions = list(range(sequence.computed, min(end, sequence.prompt_tokens - 1)))
        if self.catches_up:
            positions += range(end - 1, end + len(self.draft))
        return positions


@dataclass(frozen=True, kw_only=True)
class SlotAdmission:
    """A sequence that got its slot, and what the model must do for it."""

    sequence: Sequence
    placement: SlotAllocation


class Scheduler:
    """Owns the sequences from `add` to `remove`, and the slots of `cache`.

    `batch_tokens` is the budget of a pass, at least one token a slot. `logit_rows` bounds how many
    positions of a pass have logits besides the last one of each sequence: those of prompts, drafts.
    `slots_apart`: cells are a slot's own, as suits processors. There a token costs the same in a
    small pass as in a large one, and what one sequence computes beyond the others is a native batch
    of its own.
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
        self._is_crowded = False  # cells ran out: nobody is admitted until one of these has ended

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute."""
        return self._line.is_empty and not self._running

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Who has a slot."""
        return tuple(self._running)

    @property
    def held_tokens(self) -> int:
        """How many tokens are in cells, of those who run and of those who have finished."""
        return self._cache.held_tokens

    @property
    def free_slots(self) -> int:
        """How many slots nobody runs on."""
        return self._cache.free

    def add(self, *sequences: Sequence) -> None:
        """Queue them, in order of arrival."""
        self._line.add(*sequences)

    def remove(self, sequence: Sequence) -> None:
        """The sequence has ended: finished, failed or cancelled, wherever it was."""
        if sequence.slot is None:
            self._line.remove(sequence)
            return
        self._cache.release(sequence.slot)
        self._running.remove(sequence)
        self._is_crowded = False
        sequence.slot = None

    def admit(self) -> list[SlotAdmission]:
        """Give slots to those who are next in the line."""
        admitted: list[SlotAdmission] = []
        while not self._has_copied_enough(admitted) and (sequence := self._next()):
            placement = self._cache.place(sequence.reusable, asked=sequence.prompt_tokens)
            assert placement is not None, "a slot is free for who is next"
            self._start(sequence, placement)
            admitted.append(SlotAdmission(sequence=sequence, placement=placement))
        return admitted

    def compact(self) -> list[SlotAdmission]:
        """Move a running sequence next to the others, if it still has far to go."""
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
        """What the next pass computes, in the order of slots; of the prompts of batch work at most
        so many tokens."""
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
        """What is computed of a picture or a sound before the next pass, with which it cannot be
        mixed: as much of the one that comes first as a pass may hold."""
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
        """How many drafted tokens a pass has room for besides `work`."""
        tokens = sum(item.count for item in work)
        rows = sum(len(item.output_positions) - item.catches_up for item in work)
        return min(self._batch_tokens - tokens, self._logit_rows - rows)

    def settle(self, work: list[ScheduledTokens]) -> list[Sequence]:
        """The pass was computed; gives the sequences that have caught up, due for a next token."""
        for item in work:
            sequence, start = item.sequence, item.sequence.computed
            sequence.computed += item.count
            if sequence.slot is not None:
                self._cache.extend(sequence.slot, sequence.tokens[start : sequence.computed])
        return [item.sequence for item in work if not item.sequence.uncomputed_tokens]

    def keep(self, sequence: Sequence, draft: tuple[int, ...]) -> None:
        """These drafted tokens came next indeed: they are computed."""
        sequence.computed += len(draft)
        if sequence.slot is not None:
            self._cache.extend(sequence.slot, draft)

    def recompute(self, sequence: Sequence) -> None:
        """The cells of a running sequence are lost: it starts over in its slot."""
        if sequence.slot is not None:
            self._cache.forget(sequence.slot)
        sequence.computed = 0
        sequence.cached_tokens = 0

    def make_room(self) -> int | None:
        """Cells have run out: gives a slot to be emptied. First those that nobody runs on, then the
        newest of several running sequences, batch ones before others, which will be computed again
        when one of the others has ended. None if only one sequence is left."""
        slot = self._cache.evict()
        return self._preempt() if slot is None else slot

    def forget(self, slot: int) -> None:
        """The cells of a slot that nobody runs on are lost."""
        self._cache.forget(slot)

    def _few(self) -> int:
        """How far behind somebody who talks may be, and still get one token as the others do."""
        if not self._slots_apart:
            return 1
        return min(_FEW, max(1, sum(sequence.uncomputed_tokens == 1 for sequence in self._running)))

    def _has_copied_enough(self, admitted: list[SlotAdmission]) -> bool:
        """Whether cells were copied for as many newcomers as the next pass reads to their end, or
        for two that it does not. For others they are copied before the pass that reads those: so
        nobody waits for that now."""
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
        """Who gets a slot that is free, or that a batch sequence leaves."""
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
        """A running sequence leaves its slot, which is given, and waits for another one."""
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
        """Divide `budget` among those who catch up with a prompt, `patient` of it at most among
        those who can wait. Interactive newcomers get nothing once enough of them come to an end.
        """
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
    """Whether it goes on by one token a pass."""
    return sequence.uncomputed_tokens <= (few if sequence.generated else 1)


def _arrival(sequence: Sequence) -> float:
    return sequence.arrived_at


def _comes_first(sequence: Sequence) -> tuple[bool, float]:
    return sequence.priority is Priority.BATCH, sequence.arrived_at


def _is_sated(sequence: Sequence) -> bool:
    """Whether it is batch work that has had its share of this stay."""
    has_had = sequence.computed - sequence.reached
    return sequence.priority is Priority.BATCH and has_had >= _share(sequence)


def _share(sequence: Sequence) -> int:
    """How many tokens a batch sequence goes on by in one stay: enough to be worth computing anew
    what it had to leave behind."""
    return max(_BATCH_SHARE, sequence.reached // 2)


def _can_leave(sequence: Sequence) -> tuple[bool, float]:
    """The largest leaves first: batch work, then who came last."""
    return sequence.priority is Priority.BATCH, sequence.arrived_at
