"""Waiting queue of the engine: which sequence gets the next free slot. Pure.

Interactive sequences come before batch ones, and sequences of requests with fewer running sequences
before others. Every eighth slot goes to the sequence that has waited longest, so that none starves.
A sequence whose prefix is being read from a file, or computed by another sequence, waits until that
prefix is available, then reuses it. An interactive sequence never waits for the prefix of a batch
sequence, because it may preempt that one.
"""

from collections import Counter, abc

from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.messages import Priority
from llm_backend.engine.sequence import Sequence

_OLDEST_SLOT_EVERY = 8  # every eighth free slot goes to the oldest sequence


class WaitingQueue:
    """Waiting sequences, stored in the order of their arrival, preempted ones first. `take_next`
    chooses from them in another order. `cache` finds cached prefixes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._waiting: list[Sequence] = []
        # for each waiting sequence: the running one whose prefill it waits for, and the length of
        # their shared prefix
        self._leaders: dict[Sequence, tuple[Sequence, int]] = {}
        self._slots_by_priority = 0  # sequences that got a slot since the last one chosen by age

    @property
    def is_empty(self) -> bool:
        """True if no sequence waits."""
        return not self._waiting

    def add(self, *sequences: Sequence) -> None:
        """Appends sequences."""
        self._waiting.extend(sequences)

    def put_back(self, sequence: Sequence) -> None:
        """Prepends a preempted sequence: it comes first among its equals."""
        self._waiting.insert(0, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Removes a waiting sequence."""
        self._waiting.remove(sequence)
        self._leaders.pop(sequence, None)

    def take_next(self, running: abc.Sequence[Sequence]) -> Sequence | None:
        """Removes and returns the sequence that gets a free slot. None if every waiting sequence
        waits for a prefix that one of the `running` sequences computes, or that is being read from
        a file."""
        chooses_by_age = self._slots_by_priority >= _OLDEST_SLOT_EVERY - 1
        ordered = self._by_age() if chooses_by_age else self._by_priority(running)
        found = self._take_first(ordered, running)
        if found is not None and chooses_by_age:
            self._slots_by_priority = 0
        return found

    def take_next_interactive(self, running: abc.Sequence[Sequence]) -> Sequence | None:
        """Removes and returns the next interactive sequence. The caller preempts one of the
        `running` sequences for it."""
        ordered = [
            one for one in self._by_priority(running) if one.priority is Priority.INTERACTIVE
        ]
        return self._take_first(ordered, running)

    def _take_first(
        self, ordered: list[Sequence], running: abc.Sequence[Sequence]
    ) -> Sequence | None:
        found = next((one for one in ordered if not self._must_wait(one, running)), None)
        if found is not None:
            self.remove(found)
            self._slots_by_priority += 1
        return found

    def _by_age(self) -> list[Sequence]:
        return sorted(self._waiting, key=lambda waiting: waiting.arrived_at)

    def _by_priority(self, running: abc.Sequence[Sequence]) -> list[Sequence]:
        running_counts = Counter(sequence.request for sequence in running)
        return sorted(
            self._waiting,
            key=lambda waiting: (
                waiting.priority is Priority.BATCH,
                running_counts[waiting.request],
            ),
        )

    def _must_wait(self, sequence: Sequence, running: abc.Sequence[Sequence]) -> bool:
        """True if it pays to wait: a prefix of this sequence is being computed by another one or
        read from a file, and is longer than every cached prefix by at least `copy_threshold`
        tokens. A prefix that is read needs a free slot: without one, no sequence waits for it."""
        if (
            self._cache.free_slots
            and self._cache.prefixes_being_restored
            and self._cache.should_wait_for_restore(sequence.reusable_tokens)
        ):
            return True
        leader, length = self._leaders.pop(sequence, (None, 0))
        if leader is None or leader.slot is None or leader.computed >= length:
            leader, length = self._leader(sequence, running)
        if leader is None:
            return False
        self._leaders[sequence] = (leader, length)
        return True

    def _leader(
        self, sequence: Sequence, running: abc.Sequence[Sequence]
    ) -> tuple[Sequence | None, int]:
        """Returns the running sequence that computes such a prefix, and the prefix's length; None
        and 0 if there is none."""
        leaders = [one for one in running if not _is_preemptible_for(one, sequence)]
        if not self._cache.can_roll_back or not leaders:
            return None, 0
        tokens = sequence.reusable_tokens
        shared = {leader: common_prefix_length(leader.tokens, tokens) for leader in leaders}
        leader = max(leaders, key=lambda one: shared[one])
        if leader.computed >= shared[leader]:
            return None, 0
        if shared[leader] - self._cache.longest_prefix_length(tokens) < self._cache.copy_threshold:
            return None, 0
        return leader, shared[leader]


def _is_preemptible_for(leader: Sequence, follower: Sequence) -> bool:
    """True if `leader` is a batch sequence and `follower` is not: the follower may preempt the
    leader before the shared prefix is computed, so it must not wait for that prefix."""
    return leader.priority is Priority.BATCH and follower.priority is not Priority.BATCH
