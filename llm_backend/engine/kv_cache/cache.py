"""KV cache by slots: allocates slots, and reuses, copies and evicts cached prefixes. Pure.

A slot is one sequence id of the native cache. A finished sequence leaves its cells as a cached
prefix, for sequences that begin with the same tokens, until the slot is needed. The least recently
used slot is evicted first (LRU). Copying cells from another slot costs about as much as computing
`copy_threshold` tokens, and less from a slot with few tokens where only used cells are copied.

Unified cells (`kv_unified` of llama.cpp) are one pool for all slots. Without them, the native code
computes each contiguous range of slots as a batch of its own. Neighbouring slots are preferred
then. Prefixes are copied to less recently used slots before they are overwritten.
"""

from collections import abc
from dataclasses import dataclass, field
from typing import Protocol

from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.slot_allocation import Copy, SlotAllocation, SlotTokens
from llm_backend.engine.media_runs import length_of_whole_runs

_CELLS_COPIED_PER_TOKEN = 32  # in the time of one computed token; assumed low: 360 were measured
_MINIMUM_COPY_COST = 4  # minimum cost of a copy, in computed tokens
_PROMPT_END_TOLERANCE = 4  # last tokens of a prompt that count as part of the answer
_MINIMUM_RESTORE_COST = 16  # minimum cost of restoring a state, in computed tokens


class HostPrefixStates(Protocol):
    """The host prefix cache: states of prefixes that can be restored into a slot without a file."""

    def find(self, tokens: abc.Sequence[int]) -> Prefix | None:
        """Returns a state that saves prefill of these tokens; None if there is none."""

    def record_restore(self, prefix: Prefix, shared: int) -> None:
        """Records that the first `shared` tokens of a state are restored into a slot."""


@dataclass(kw_only=True)
class _Slot:
    number: int
    tokens: list[int] = field(default_factory=list)  # whose cells it holds
    prompt_tokens: int = 0  # length of the prompt; tokens after it are generated
    is_running: bool = False
    used_at: int = 0


def restore_cost(state_tokens: int) -> int:
    """Returns the cost of restoring a state of `state_tokens`, in computed tokens."""
    return max(_MINIMUM_RESTORE_COST, state_tokens // _CELLS_COPIED_PER_TOKEN)


class Cache:
    """Slot allocation and cached prefixes.

    `can_roll_back` is False for models whose state cannot be truncated (recurrent ones): a sequence
    can only continue from the very end of a slot's tokens. `kv_unified` is True if all slots share
    one pool of cells. `copies_only_used_cells` is True if the cost of a copy depends only on the
    used cells. An allocation reports as overwritten each prefix that loses at least
    `save_threshold` tokens (None: no prefix) and is in no other slot. `host_prefixes` are the
    states in host memory. The attribute `prefixes_being_restored` holds the tokens of prefixes that
    are being read from files.
    """

    def __init__(
        self,
        *,
        slots: int,
        copy_threshold: int = 1,
        can_roll_back: bool = True,
        kv_unified: bool = False,
        copies_only_used_cells: bool = False,
        save_threshold: int | None = None,
        host_prefixes: HostPrefixStates | None = None,
    ) -> None:
        self._slots = [_Slot(number=number) for number in range(slots)]
        self._copy_threshold = max(1, copy_threshold)
        self.kv_unified = kv_unified
        self._copies_only_used_cells = copies_only_used_cells
        self._save_threshold = save_threshold
        self._host_prefixes = host_prefixes
        self.prefixes_being_restored: tuple[abc.Sequence[int], ...] = ()
        self._overwritten: list[SlotTokens] = []
        self._clock = 0
        self.can_roll_back = can_roll_back

    @property
    def cell_tokens(self) -> int:
        """Number of tokens in all slots."""
        return sum(len(slot.tokens) for slot in self._slots)

    @property
    def running_tokens(self) -> int:
        """Number of tokens in the slots of running sequences."""
        return sum(len(slot.tokens) for slot in self._slots if slot.is_running)

    @property
    def free_slots(self) -> int:
        """Number of slots without a running sequence."""
        return sum(not slot.is_running for slot in self._slots)

    @property
    def copy_threshold(self) -> int:
        """Minimum number of shared tokens at which a copy is cheaper than computing them."""
        return self._copy_threshold

    def longest_prefix_length(self, tokens: abc.Sequence[int]) -> int:
        """Returns the length of the longest cached prefix of `tokens`."""
        return max(self._usable(slot, tokens) for slot in self._slots)

    def longest_prefix_in_memory(self, tokens: abc.Sequence[int]) -> int:
        """Returns the length of the longest prefix of `tokens` in a slot or in host memory."""
        cached = self.longest_prefix_length(tokens)
        if self._host_prefixes is None:
            return cached
        prefix = self._host_prefixes.find(tokens)
        return (
            cached if prefix is None else max(cached, common_prefix_length(prefix.tokens, tokens))
        )

    @property
    def cached_slots(self) -> list[SlotTokens]:
        """Tokens of the slots that are not empty, most recently used first."""
        latest = sorted(self._slots, key=lambda slot: slot.used_at, reverse=True)
        return [SlotTokens(slot=slot.number, tokens=slot.tokens) for slot in latest if slot.tokens]

    def should_wait_for_restore(self, tokens: abc.Sequence[int]) -> bool:
        """True if the longest prefix of `tokens` that is being restored is longer than the longest
        cached one by at least `copy_threshold`."""
        longest = max(
            (common_prefix_length(one, tokens) for one in self.prefixes_being_restored), default=0
        )
        return longest - self.longest_prefix_length(tokens) >= self._copy_threshold

    def allocate_restored(self, tokens: abc.Sequence[int]) -> SlotAllocation | None:
        """Allocates a free slot for restored `tokens`, as a cached prefix without a running
        sequence; None if no slot is free."""
        if not self.free_slots:
            return None
        target = _least_recently_used(self._neighbours())
        copies = self._back_up(target, 0, target)
        target.tokens, target.prompt_tokens = list(tokens), len(tokens)
        self._touch(target)
        return self._allocation(target, 0, copies)

    def allocate(
        self,
        tokens: abc.Sequence[int],
        prompt_tokens: int | None = None,
        *,
        is_shared: bool = False,
    ) -> SlotAllocation | None:
        """Allocates a slot for a sequence that begins with `tokens`; None if no slot is free. The
        first `prompt_tokens` of the sequence are its prompt; None means all of `tokens`. With
        `is_shared`, later sequences begin with this prompt, too. A cache that cannot roll back then
        copies the slot with the prompt, so that they find it unchanged."""
        if not self.free_slots:
            return None
        usable = {slot.number: self._usable(slot, tokens) for slot in self._slots}
        source = max(
            self._slots,
            key=lambda slot: (usable[slot.number], not slot.is_running, -len(slot.tokens)),
        )
        shared = usable[source.number]
        restored = self._take_restorable(tokens, shared)
        if restored is not None:
            target = _least_recently_used(self._neighbours())
            copies = self._back_up(target, 0, target)
            keep = common_prefix_length(restored.tokens, tokens)
        else:
            target = self._target(source, shared)
            if is_shared and not self.can_roll_back:
                target = self._other_than(source)
            keep = usable[target.number]
            is_copied = shared - keep >= self._copy_threshold_of(source)
            copies = self._back_up(target, keep, source if is_copied else target)
            if is_copied:
                copies, keep = (*copies, Copy(source=source.number, target=target.number)), shared
        target.tokens = list(tokens[:keep])
        target.prompt_tokens = len(tokens) if prompt_tokens is None else prompt_tokens
        target.is_running = True
        self._touch(target)
        return self._allocation(target, keep, copies, restored)

    def compact(self) -> tuple[int, SlotAllocation] | None:
        """Moves one running sequence so that fewer contiguous ranges of slots are computed. Returns
        its old slot and its new allocation; None if no move helps."""
        if self.kv_unified or not self.can_roll_back or self._contiguous_ranges() < 2:
            return None
        running = [slot for slot in self._slots if slot.is_running]
        free = [slot for slot in self._slots if not slot.is_running]
        moves = [(source, target) for source in running for target in free]
        if not moves:
            return None
        source, target = min(
            moves, key=lambda move: (self._contiguous_ranges(*move), move[1].used_at)
        )
        if self._contiguous_ranges(source, target) >= self._contiguous_ranges():
            return None
        copies = self._back_up(target, 0, source)
        copies = (*copies, Copy(source=source.number, target=target.number))
        target.tokens, source.tokens = source.tokens, list(source.tokens)
        target.prompt_tokens = source.prompt_tokens
        target.is_running, source.is_running = True, False
        self._touch(target)
        source.used_at = 0  # the other slot holds the same tokens
        return source.number, self._allocation(target, len(target.tokens), copies)

    def extend(self, slot: int, tokens: abc.Sequence[int]) -> None:
        """Appends `tokens` that were computed into the cells of `slot`."""
        self._slots[slot].tokens.extend(tokens)

    def release(self, slot: int) -> None:
        """Releases the slot of a sequence that has ended; its cells stay as a cached prefix until
        the slot is needed."""
        self._slots[slot].is_running = False
        self._touch(self._slots[slot])

    def clear(self, slot: int) -> SlotTokens:
        """Records that the caller empties the cells of `slot`. Returns the tokens that it held."""
        tokens, self._slots[slot].tokens = self._slots[slot].tokens, []
        self._slots[slot].used_at = 0  # overwritten before any cached prefix
        return SlotTokens(slot=slot, tokens=tokens)

    def evict_prefix(self) -> SlotTokens | None:
        """Evicts the least recently used cached prefix and returns it; None if there are none."""
        idle = [slot for slot in self._slots if not slot.is_running and slot.tokens]
        if not idle:
            return None
        victim = min(idle, key=lambda slot: slot.used_at)
        return self.clear(victim.number)

    def _target(self, source: _Slot, shared: int) -> _Slot:
        """Returns the target slot of an allocation, among the free slots that make the fewest
        contiguous ranges: an empty slot, else the least recently used one. The slot `source` is
        overwritten instead of copied in two cases: if its tokens beyond the first `shared` are
        disposable, or if no slot is empty and it would lose no more tokens than it shares."""
        near = self._neighbours()
        target, discarded = _least_recently_used(near), len(source.tokens) - shared
        if not shared or source not in near:
            return target
        may_overwrite = self._is_disposable(source, shared) or (
            target.tokens and discarded <= shared
        )
        return source if may_overwrite else target

    def _other_than(self, source: _Slot) -> _Slot:
        """Returns the least recently used free slot other than `source`, or `source` if there is
        none. Marks `source` as just used."""
        self._touch(source)
        others = [slot for slot in self._slots if not slot.is_running and slot is not source]
        return _least_recently_used(others) if others else source

    def _neighbours(self) -> list[_Slot]:
        """Returns the free slots that make the fewest contiguous ranges."""
        free = [slot for slot in self._slots if not slot.is_running]
        ranges = {slot.number: self._contiguous_ranges(None, slot) for slot in free}
        fewest = min(ranges.values())
        return [slot for slot in free if ranges[slot.number] == fewest]

    def _back_up(self, slot: _Slot, kept: int, protected: _Slot) -> tuple[Copy, ...]:
        """Plans the copy of all cells of `slot` to a less recently used slot; none if its tokens
        beyond the first `kept` are disposable. The copy never overwrites `protected`, whose cells
        are copied to `slot` next."""
        victim = self._backup_slot(slot, kept, protected)
        if victim is None:
            self._record_overwritten(slot, kept)
            return ()
        self._record_overwritten(victim, 0)
        victim.tokens, victim.used_at = list(slot.tokens), slot.used_at
        victim.prompt_tokens = slot.prompt_tokens
        return (Copy(source=slot.number, target=victim.number),)

    def _is_disposable(self, slot: _Slot, kept: int) -> bool:
        """True if the tokens that a slot holds beyond `kept` may be discarded: they are few, or
        they are the end of an answer, which the chat's next prompt may lack (reasoning, or an
        answer whose tokens are not remembered). False if more than `copy_threshold` prompt tokens
        of another chat would be lost."""
        discarded = len(slot.tokens) - kept
        is_of_answer = kept + _PROMPT_END_TOLERANCE >= slot.prompt_tokens
        return discarded <= self._copy_threshold or (is_of_answer and 2 * discarded <= kept)

    def _copy_threshold_of(self, source: _Slot) -> int:
        """Returns the minimum number of shared tokens at which copying `source` is cheaper than
        computing them."""
        if not self._copies_only_used_cells:
            return self._copy_threshold
        return min(
            self._copy_threshold,
            max(_MINIMUM_COPY_COST, len(source.tokens) // _CELLS_COPIED_PER_TOKEN),
        )

    def _backup_slot(self, slot: _Slot, kept: int, protected: _Slot) -> _Slot | None:
        """Returns the less recently used slot that takes a backup of `slot`; None if that needs no
        backup, or no slot can take it."""
        if not self.can_roll_back or self._is_disposable(slot, kept):
            return None
        older = [
            other
            for other in self._slots
            if not other.is_running and other.used_at < slot.used_at and other is not protected
        ]
        return min(older, key=lambda other: other.used_at, default=None)

    def _take_restorable(self, tokens: abc.Sequence[int], cached: int) -> Prefix | None:
        """Returns the state in host memory to be restored for `tokens`, of which `cached` are in a
        slot, and records its use. None if computing is cheaper: the cost of restoring grows with
        all tokens of the state, and that of computing with the tokens that the state would add."""
        if self._host_prefixes is None or (prefix := self._host_prefixes.find(tokens)) is None:
            return None
        shared = common_prefix_length(prefix.tokens, tokens)
        if not self.can_roll_back and shared < len(prefix.tokens):
            return None
        if shared - cached < restore_cost(len(prefix.tokens)):
            return None
        self._host_prefixes.record_restore(prefix, shared)
        return prefix

    def _record_overwritten(self, slot: _Slot, kept: int) -> None:
        if self._save_threshold is None or len(slot.tokens) - kept < self._save_threshold:
            return
        if not self._is_duplicate(slot):
            self._overwritten.append(SlotTokens(slot=slot.number, tokens=slot.tokens))

    def _is_duplicate(self, slot: _Slot) -> bool:
        """True if another slot holds the same tokens."""
        length = len(slot.tokens)
        return any(
            other is not slot and other.tokens[:length] == slot.tokens for other in self._slots
        )

    def _allocation(
        self, slot: _Slot, keep: int, copies: tuple[Copy, ...], restored: Prefix | None = None
    ) -> SlotAllocation:
        overwritten, self._overwritten = tuple(self._overwritten), []
        return SlotAllocation(
            slot=slot.number,
            cached_tokens=keep,
            copies=copies,
            restored=restored,
            overwritten=overwritten,
        )

    def _contiguous_ranges(
        self, released: _Slot | None = None, allocated: _Slot | None = None
    ) -> int:
        """Returns the number of contiguous ranges of running slots if `released` were free and
        `allocated` running; 1 with unified cells."""
        if self.kv_unified:
            return 1
        running = {slot.number for slot in self._slots if slot.is_running and slot is not released}
        if allocated is not None:
            running.add(allocated.number)
        return sum(number - 1 not in running for number in running)

    def _usable(self, slot: _Slot, tokens: abc.Sequence[int]) -> int:
        shared = length_of_whole_runs(tokens, common_prefix_length(slot.tokens, tokens))
        if self.can_roll_back or shared == len(slot.tokens):
            return shared
        return 0

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used_at = self._clock


def _least_recently_used(slots: list[_Slot]) -> _Slot:
    """Returns the first empty slot, else the least recently used one."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.used_at if slot.tokens else 0))
