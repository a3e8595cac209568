"""KV cache by slots: allocates slots, and reuses, copies and evicts cached prefixes. Pure.

A slot is one sequence id of the native cache. A finished sequence leaves its cells as a cached
prefix for sequences that begin with the same tokens, until the slot is needed; the least recently
used slot is evicted first. Copying cells from another slot costs about as much as computing
`worth_copying` tokens, and less from a slot with few tokens where only used cells are copied.

Where slots have cells of their own, the native code computes runs of consecutive slots together and
each run for itself, so neighbours are preferred, and the prefixes they displace are copied to other
slots.
"""

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field

from llm_backend.engine.prompt.media_runs import whole

__all__ = ["Cache", "Copy", "SlotAllocation", "SlotTokens", "common_prefix"]

_COPIED_A_TOKEN = 32  # cells, in less time than a token is computed in: measured were 360
_LEAST_COPIED = 4  # tokens: what a copy costs however small


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Replace the cells of slot `target` by a copy of the cells of `source`."""

    source: int
    target: int


@dataclass(frozen=True, kw_only=True)
class SlotTokens:
    """The tokens whose cells a slot holds."""

    slot: int
    tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class SlotAllocation:
    """Allocation of `slot` to a sequence: make the copies in their order, then keep the first
    `keep` tokens. Cached prefixes that are overwritten and were worth keeping are `lost`."""

    slot: int
    keep: int
    copies: tuple[Copy, ...] = ()
    lost: tuple[SlotTokens, ...] = ()


@dataclass(kw_only=True)
class _Slot:
    number: int
    tokens: list[int] = field(default_factory=list)  # whose cells it holds
    # the number of prompt tokens among them and those to come; the others are generated
    asked: int = 0
    is_taken: bool = False
    used_at: int = 0


def common_prefix(left: Tokens[int], right: Tokens[int]) -> int:
    """Length of the common prefix of two token lists."""
    end = min(len(left), len(right))
    step, same = 16, 0
    while same < end and left[same : same + step] == right[same : same + step]:
        same = min(same + step, end)
        step *= 2
    high = min(same + step, end)
    while same < high:  # the first difference is in [same, high)
        middle = (same + high + 1) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            high = middle - 1
    return same


class Cache:
    """Slot allocation and cached prefixes.

    `can_roll_back` is False for models whose state cannot be truncated (recurrent ones): they can
    only continue from the very end of a slot's tokens. `prefers_neighbours` is for slots with cells
    of their own; `copies_used` is True if a copy costs by the used cells alone. Overwritten
    prefixes of `worth_keeping` tokens or more are reported as lost, if that is not None. `expected`
    are prefixes that are being restored from files.
    """

    def __init__(
        self,
        *,
        slots: int,
        worth_copying: int = 1,
        can_roll_back: bool = True,
        prefers_neighbours: bool = True,
        copies_used: bool = False,
        worth_keeping: int | None = None,
    ) -> None:
        self._slots = [_Slot(number=number) for number in range(slots)]
        self._worth_copying = max(1, worth_copying)
        self._prefers_neighbours = prefers_neighbours
        self._copies_used = copies_used
        self._worth_keeping = worth_keeping
        self.expected: tuple[Tokens[int], ...] = ()
        self._lost: list[SlotTokens] = []
        self._clock = 0
        self.can_roll_back = can_roll_back

    @property
    def held_tokens(self) -> int:
        """Number of tokens in all slots."""
        return sum(len(slot.tokens) for slot in self._slots)

    @property
    def free(self) -> int:
        """Number of slots without a running sequence."""
        return sum(not slot.is_taken for slot in self._slots)

    @property
    def worth_copying(self) -> int:
        """Number of shared tokens from which on a copy is cheaper than computing them."""
        return self._worth_copying

    def best(self, tokens: Tokens[int]) -> int:
        """Length of the longest cached prefix of `tokens`."""
        return max(self._usable(slot, tokens) for slot in self._slots)

    @property
    def held(self) -> list[SlotTokens]:
        """Tokens of the slots that are not empty, most recently used first."""
        latest = sorted(self._slots, key=lambda slot: slot.used_at, reverse=True)
        return [SlotTokens(slot=slot.number, tokens=slot.tokens) for slot in latest if slot.tokens]

    def is_expecting(self, tokens: Tokens[int]) -> bool:
        """True if a prefix of `tokens` is being restored that is longer than any cached one."""
        longest = max((common_prefix(one, tokens) for one in self.expected), default=0)
        return longest - self.best(tokens) >= self._worth_copying

    def take_in(self, tokens: Tokens[int]) -> SlotAllocation | None:
        """Allocate a free slot for restored `tokens`, as a cached prefix without a running
        sequence; None if no slot is free."""
        if not self.free:
            return None
        target = _next_given(self._near())
        copies = self._rescue(target, 0, target)
        target.tokens, target.asked = list(tokens), len(tokens)
        self._touch(target)
        return self._placement(target, 0, copies)

    def place(self, tokens: Tokens[int], asked: int | None = None) -> SlotAllocation | None:
        """Allocate a slot for a sequence that begins with `tokens`; None if no slot is free. Of
        the tokens that it will hold, the first `asked` are a prompt; None is all of `tokens`."""
        if not self.free:
            return None
        usable = {slot.number: self._usable(slot, tokens) for slot in self._slots}
        source = max(
            self._slots,
            key=lambda slot: (usable[slot.number], not slot.is_taken, -len(slot.tokens)),
        )
        shared = usable[source.number]
        target = self._target(source, shared)
        keep = usable[target.number]
        copies = self._rescue(target, keep, source)
        if target is not source and shared - keep >= self._worth_copying_from(source):
            copies, keep = (*copies, Copy(source=source.number, target=target.number)), shared
        target.tokens = list(tokens[:keep])
        target.asked = len(tokens) if asked is None else asked
        target.is_taken = True
        self._touch(target)
        return self._placement(target, keep, copies)

    def compact(self) -> tuple[int, SlotAllocation] | None:
        """Move one running sequence so that fewer runs of slots are computed. Returns the slot
        that it leaves and its new allocation."""
        if not self._prefers_neighbours or not self.can_roll_back or self._runs() < 2:
            return None
        taken = [slot for slot in self._slots if slot.is_taken]
        free = [slot for slot in self._slots if not slot.is_taken]
        moves = [(left, target) for left in taken for target in free]
        if not moves:
            return None
        left, target = min(moves, key=lambda move: (self._runs(*move), move[1].used_at))
        if self._runs(left, target) >= self._runs():
            return None
        copies = self._rescue(target, 0, left)
        copies = (*copies, Copy(source=left.number, target=target.number))
        target.tokens, left.tokens = left.tokens, list(left.tokens)
        target.asked = left.asked
        target.is_taken, left.is_taken = True, False
        self._touch(target)
        left.used_at = 0  # the other slot holds the same tokens
        return left.number, self._placement(target, len(target.tokens), copies)

    def extend(self, slot: int, tokens: Tokens[int]) -> None:
        """Append `tokens` that were computed into the cells of `slot`."""
        self._slots[slot].tokens.extend(tokens)

    def release(self, slot: int) -> None:
        """Release the slot of a sequence that has ended; its cells stay as a cached prefix until
        the slot is needed."""
        self._slots[slot].is_taken = False
        self._touch(self._slots[slot])

    def forget(self, slot: int) -> None:
        """Note that the cells of `slot` are empty."""
        self._slots[slot].tokens = []

    def evict(self) -> int | None:
        """Evict the least recently used cached prefix and return its slot; None if there are
        none."""
        idle = [slot for slot in self._slots if not slot.is_taken and slot.tokens]
        if not idle:
            return None
        victim = min(idle, key=lambda slot: slot.used_at)
        victim.tokens = []
        return victim.number

    def _target(self, source: _Slot, shared: int) -> _Slot:
        """Target slot of an allocation, among the free slots that make the fewest runs: the
        source itself if few cached tokens are lost by that, else an empty slot, else the least
        recently used one."""
        near = self._near()
        target, lost = _next_given(near), len(source.tokens) - shared
        if not shared or source not in near:
            return target
        is_little = self._is_little(source, shared) or (target.tokens and lost <= shared)
        return source if is_little else target

    def _near(self) -> list[_Slot]:
        """Free slots that make the fewest runs."""
        free = [slot for slot in self._slots if not slot.is_taken]
        runs = {slot.number: self._runs(None, slot) for slot in free}
        fewest = min(runs.values())
        return [slot for slot in free if runs[slot.number] == fewest]

    def _rescue(self, slot: _Slot, keep: int, source: _Slot) -> tuple[Copy, ...]:
        """Copy the tokens that `slot` holds beyond `keep` into a less recently used slot, if
        that is worth it. `source` may not be overwritten, as it is copied afterwards."""
        victim = self._victim(slot, keep, source)
        if victim is None:
            self._give_up(slot, keep)
            return ()
        self._give_up(victim, 0)
        victim.tokens, victim.used_at = list(slot.tokens), slot.used_at
        victim.asked = slot.asked
        return (Copy(source=slot.number, target=victim.number),)

    def _is_little(self, slot: _Slot, keep: int) -> bool:
        """True if the tokens that a slot holds beyond `keep` are discarded rather than copied:
        few tokens, or the end of an answer, whose chat has sent it back as other tokens. Prompt
        tokens of another chat never are."""
        lost = len(slot.tokens) - keep
        is_of_answer = keep + _LEAST_COPIED >= slot.asked
        return lost <= self._worth_copying or (is_of_answer and 2 * lost <= keep)

    def _worth_copying_from(self, source: _Slot) -> int:
        """Number of shared tokens from which on copying a slot is cheaper than computing them."""
        if not self._copies_used:
            return self._worth_copying
        return min(self._worth_copying, max(_LEAST_COPIED, len(source.tokens) // _COPIED_A_TOKEN))

    def _victim(self, slot: _Slot, keep: int, source: _Slot) -> _Slot | None:
        """The slot that is overwritten to save the tokens of another slot, if they are to be
        saved."""
        if not self.can_roll_back or self._is_little(slot, keep):
            return None
        older = [
            other
            for other in self._slots
            if not other.is_taken and other.used_at < slot.used_at and other is not source
        ]
        return min(older, key=lambda other: other.used_at, default=None)

    def _give_up(self, slot: _Slot, keep: int) -> None:
        if self._worth_keeping is not None and len(slot.tokens) - keep >= self._worth_keeping:
            self._lost.append(SlotTokens(slot=slot.number, tokens=slot.tokens))

    def _placement(self, slot: _Slot, keep: int, copies: tuple[Copy, ...]) -> SlotAllocation:
        lost, self._lost = tuple(self._lost), []
        return SlotAllocation(slot=slot.number, keep=keep, copies=copies, lost=lost)

    def _runs(self, left: _Slot | None = None, entered: _Slot | None = None) -> int:
        """Number of runs of consecutive allocated slots, with `left` released and `entered`
        allocated."""
        if not self._prefers_neighbours:
            return 1
        taken = {slot.number for slot in self._slots if slot.is_taken and slot is not left}
        if entered is not None:
            taken.add(entered.number)
        return sum(number - 1 not in taken for number in taken)

    def _usable(self, slot: _Slot, tokens: Tokens[int]) -> int:
        shared = whole(tokens, common_prefix(slot.tokens, tokens))
        if self.can_roll_back or shared == len(slot.tokens):
            return shared
        return 0

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used_at = self._clock


def _next_given(slots: list[_Slot]) -> _Slot:
    """The first empty slot, else the least recently used one."""
    return min(slots, key=lambda slot: (bool(slot.tokens), slot.used_at if slot.tokens else 0))
