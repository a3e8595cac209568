"""A second, smaller model that writes ahead of the first one. What it writes is only proposed: the
first model chooses every token as ever.

It follows each sequence in the slot of the same number, and reads what it has not read yet when it
is to go on. What it wrote and did not come is cut off when it looks at the sequence again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import common_prefix
from llm_backend.engine.model import DecodeError, Model, NoRoom
from llm_backend.engine.scheduling.scheduler import ScheduledTokens
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.pass_costs import PassCosts

__all__ = ["Drafter"]

_log = logging.getLogger("llm_backend.engine.speculation.draft_model")

_READING = 128  # tokens of a text that are read at once, so that those who talk hardly wait
_AT_FIRST = 0.7  # how often its token is right, before any was written
_PATIENCE = 500  # passes without a draft after which it is tried again


@dataclass(kw_only=True, eq=False)
class _Copy:
    """What it knows of `source`: `own` has the same first `same` tokens, and those that it wrote
    after them; as far as `own` is computed they are in its slot."""

    source: Sequence
    own: Sequence
    same: int
    rate: AcceptanceRate


class Drafter:
    """Writes ahead with `model`, tokens below `vocabulary_size`. `busy_s` is the time it took."""

    def __init__(
        self, model: Model, vocabulary_size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._model = model
        self._known = min(vocabulary_size, model.vocabulary.size)
        self._ends = model.vocabulary.end_tokens
        self._clock = clock
        self._copies: dict[int, _Copy] = {}
        self._rate = AcceptanceRate(_AT_FIRST)
        self._costs = PassCosts()
        self._resting = 0  # passes since it wrote anything
        self._is_broken = False
        self.busy_s = 0.0

    def cost(self, tokens: int) -> float:
        """What a pass of so many tokens costs; nothing until one of no more was computed, so that
        it is tried."""
        least = self._costs.least
        return 0.0 if least is None or tokens < least else self._costs.of(tokens)

    def most(self, sequence: Sequence) -> int:
        """How many tokens it could write after those of a sequence; it sees no pictures."""
        return (
            0
            if self._is_broken or sequence.runs
            else max(0, self._model.context_tokens - len(sequence.tokens))
        )

    def look(self, sequence: Sequence) -> tuple[float, int]:
        """Learn how a sequence has gone on; gives how likely the next token that is written after
        it is right, and how many tokens must be read before."""
        copy = self._followed(sequence)
        self._compare(copy)
        return copy.rate.value, copy.own.uncomputed_tokens

    def write(self, counts: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Write so many tokens after sequences that were looked at; none after those of which it
        has more to read than it reads at once."""
        began_at = self._clock()
        self._resting = 0
        wanted = {self._copies[_slot(sequence)].own: count for sequence, count in counts.items()}
        try:
            written = self._write(wanted)
        except (DecodeError, NoRoom):
            _log.exception("engine.draft_failed")
            self._is_broken = True
            return {}
        finally:
            self.busy_s += self._clock() - began_at
        return {sequence: tuple(written[self._copies[_slot(sequence)].own]) for sequence in counts}

    def rest(self) -> None:
        """Nothing is to be written in this pass. After many of them what was learnt is in doubt, as
        texts and the machine's load change."""
        self._resting += 1
        if self._resting % _PATIENCE == 0:
            self._rate.forget()
            self._costs = PassCosts()

    def copy(self, source: int, target: int) -> None:
        """The cells of one slot are given to another one."""
        copy = self._copies.get(source)
        if copy is None or not copy.own.computed:
            return
        self._model.copy(source, target)
        own = _own(copy.source, target, copy.own.tokens[: copy.own.computed])
        own.computed = len(own.tokens)
        self._copies[target] = _Copy(
            source=copy.source, own=own, same=min(copy.same, own.computed), rate=copy.rate
        )

    def forget(self, slot: int) -> None:
        """Whatever is in a slot is not believed any longer."""
        self._model.truncate(slot, 0)
        self._copies.pop(slot, None)

    def _followed(self, sequence: Sequence) -> _Copy:
        """What is known of a sequence: of what its slot had before, as much as is the same."""
        slot = _slot(sequence)
        copy = self._copies.get(slot)
        if copy is not None and copy.source is sequence:
            return copy
        own = _own(sequence, slot, []) if copy is None else copy.own
        same = common_prefix(own.tokens[: own.computed], sequence.tokens)
        self._cut(own, same)
        del own.tokens[own.computed :]
        self._copies[slot] = _Copy(
            source=sequence, own=own, same=own.computed, rate=AcceptanceRate(self._rate)
        )
        return self._copies[slot]

    def _compare(self, copy: _Copy) -> None:
        """Hold what was written against what came; cut off what did not."""
        own, tokens = copy.own, copy.source.tokens
        written, came = own.tokens[copy.same :], tokens[copy.same :]
        right = common_prefix(written, came)
        for _ in range(right):
            copy.rate.count(True)
        if right < min(len(written), len(came)):
            copy.rate.count(False)
        self._cut(own, min(copy.same + right, len(tokens) - 1))
        own.tokens[own.computed :] = tokens[own.computed :]
        copy.same = len(tokens)

    def _cut(self, own: Sequence, length: int) -> None:
        """Keep the first `length` tokens of what is computed, or none if they cannot be kept."""
        if own.computed <= length:
            return
        own.computed = length
        if not self._model.truncate(_slot(own), length):
            self._model.truncate(_slot(own), 0)
            own.computed = 0

    def _write(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """Read in one pass, then a token of each in one pass after the other."""
        written: dict[Sequence, list[int]] = {own: [] for own in wanted}
        work = self._to_read(list(wanted))
        while work:
            going = []
            for own, token in self._forward(work):
                own.append(token)
                written[own].append(token)
                if token not in self._ends and len(written[own]) < wanted[own]:
                    going.append(own)
            work = [ScheduledTokens(own, 1) for own in going]
        return written

    def _to_read(self, owns: list[Sequence]) -> list[ScheduledTokens]:
        """What was not read yet, as much as is read at once: of those first who are nearly done."""
        left = min(max(_READING, 2 * len(owns)), self._model.batch_tokens)
        work = []
        for own in sorted(owns, key=lambda own: own.uncomputed_tokens):
            count = min(own.uncomputed_tokens, left)
            left -= count
            if count:
                work.append(ScheduledTokens(own, count))
        return sorted(work, key=lambda item: _slot(item.sequence))

    def _forward(self, work: list[ScheduledTokens]) -> list[tuple[Sequence, int]]:
        """Compute a pass; gives the likeliest next token of each that has caught up."""
        began_at = self._clock()
        ready = [item.sequence for item in work if item.catches_up]
        rows = self._model.forward(work)
        best = rows[:, : self._known].argmax(axis=1).tolist()
        for item in work:
            item.sequence.computed += item.count
        self._costs.measured(sum(item.count for item in work), self._clock() - began_at)
        return list(zip(ready, best, strict=True))


def _own(source: Sequence, slot: int, tokens: list[int]) -> Sequence:
    """A sequence of the draft model's own, as far as its model cares."""
    return Sequence(
        request=source.request,
        index=source.index,
        tokens=tokens,
        limit=source.limit,
        arrived_at=source.arrived_at,
        slot=slot,
    )


def _slot(sequence: Sequence) -> int:
    assert sequence.slot is not None, "who is written ahead of has a slot"
    return sequence.slot
