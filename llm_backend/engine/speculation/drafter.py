"""Draft model: a second, smaller model that drafts for the first one. Its tokens are only
proposals: the first model verifies each one.

The draft model follows each sequence in the slot of the same number, and computes tokens that are
missing there before it drafts. Rejected tokens are truncated when it follows the sequence again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.model import Model
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.draft_source import DraftSource

# uncomputed tokens of a text in one pass, so that decoding sequences hardly wait
_PREFILL_TOKENS = 128


@dataclass(kw_only=True, eq=False)
class _DraftSequence:
    """The draft model's copy of `source`, made when that had dropped `dropped_tokens`: `own` has
    the same first `same` tokens, then drafted ones; its computed tokens are in its slot."""

    source: Sequence
    dropped_tokens: int
    own: Sequence
    same: int
    rate: AcceptanceRate


class Drafter(DraftSource):
    """Drafts with `model`, tokens below `vocabulary_size`."""

    def __init__(
        self, model: Model, vocabulary_size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self._model = model
        self._vocabulary_size = min(vocabulary_size, model.vocabulary.size)
        self._ends = model.vocabulary.end_tokens
        self._copies: dict[int, _DraftSequence] = {}

    def draft_limit(self, sequence: Sequence) -> int:
        """Maximum number of tokens to draft for a sequence; 0 for one with media."""
        return (
            0
            if self._is_broken or sequence.runs
            else max(0, self._model.context_tokens - len(sequence.tokens))
        )

    def follow(self, sequence: Sequence) -> tuple[float, int]:
        """Follows a sequence; returns the acceptance rate of the next drafted token, and the
        number of tokens to compute before it."""
        copy = self._copy_of(sequence)
        self._compare(copy)
        return copy.rate.value, copy.own.uncomputed_tokens

    def copy(self, source: int, target: int) -> None:
        """Copies the cells of slot `source` to slot `target`."""
        copy = self._copies.get(source)
        if copy is None or not copy.own.computed:
            return
        self._model.copy(source, target)
        own = _own_sequence(copy.source, target, copy.own.tokens[: copy.own.computed])
        own.computed = len(own.tokens)
        self._copies[target] = _DraftSequence(
            source=copy.source,
            dropped_tokens=copy.dropped_tokens,
            own=own,
            same=min(copy.same, own.computed),
            rate=copy.rate,
        )

    def clear(self, slot: int) -> None:
        """Empties a slot whose cells may be wrong."""
        self._model.truncate(slot, 0)
        self._copies.pop(slot, None)

    def _copy_of(self, sequence: Sequence) -> _DraftSequence:
        """The copy of a sequence; a new one keeps the common prefix of its slot's cells. After a
        context shift the copy is made again, because the remaining tokens have other positions."""
        slot = sequence.assigned_slot
        copy = self._copies.get(slot)
        if (
            copy is not None
            and copy.source is sequence
            and copy.dropped_tokens == sequence.dropped_tokens
        ):
            return copy
        own = _own_sequence(sequence, slot, []) if copy is None else copy.own
        same = common_prefix_length(own.tokens[: own.computed], sequence.tokens)
        self._truncate(own, same)
        del own.tokens[own.computed :]
        self._copies[slot] = _DraftSequence(
            source=sequence,
            dropped_tokens=sequence.dropped_tokens,
            own=own,
            same=own.computed,
            rate=AcceptanceRate(self._rate),
        )
        return self._copies[slot]

    def _compare(self, copy: _DraftSequence) -> None:
        """Compares drafted tokens with the sequence, counts them, and truncates rejected ones."""
        own, tokens = copy.own, copy.source.tokens
        drafted, appended = own.tokens[copy.same :], tokens[copy.same :]
        accepted = copy.rate.count_draft(drafted, appended)
        self._truncate(own, min(copy.same + accepted, len(tokens) - 1))
        own.tokens[own.computed :] = tokens[own.computed :]
        copy.same = len(tokens)

    def _truncate(self, own: Sequence, length: int) -> None:
        """Keeps the first `length` computed tokens, or none if the cells cannot be truncated."""
        if own.computed <= length:
            return
        own.computed = length
        if not self._model.truncate(own.assigned_slot, length):
            self._model.truncate(own.assigned_slot, 0)
            own.computed = 0

    def _draft(self, counts: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        own = {sequence: self._copies[sequence.assigned_slot].own for sequence in counts}
        drafts = self._draft_own({own[sequence]: count for sequence, count in counts.items()})
        return {sequence: tuple(drafts[own[sequence]]) for sequence in counts}

    def _draft_own(self, counts: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        """Computes missing tokens in one pass, then drafts one token of each in every further
        pass."""
        drafts: dict[Sequence, list[int]] = {own: [] for own in counts}
        scheduled = self._plan_prefill(list(counts))
        while scheduled:
            unfinished = []
            for own, token in self._forward(scheduled):
                own.append(token)
                drafts[own].append(token)
                if token not in self._ends and len(drafts[own]) < counts[own]:
                    unfinished.append(own)
            scheduled = [ScheduledTokens(own, 1) for own in unfinished]
        return drafts

    def _plan_prefill(self, owns: list[Sequence]) -> list[ScheduledTokens]:
        """Missing tokens for one pass, those of nearly complete sequences first."""
        budget = min(max(_PREFILL_TOKENS, 2 * len(owns)), self._model.batch_tokens)
        scheduled = []
        for own in sorted(owns, key=lambda own: own.uncomputed_tokens):
            count = min(own.uncomputed_tokens, budget)
            budget -= count
            if count:
                scheduled.append(ScheduledTokens(own, count))
        return sorted(scheduled, key=lambda item: item.sequence.assigned_slot)

    def _forward(self, scheduled: list[ScheduledTokens]) -> list[tuple[Sequence, int]]:
        """Computes a pass; returns the likeliest next token of each sequence without uncomputed
        tokens."""
        started_at = self._clock()
        ready = [item.sequence for item in scheduled if item.needs_sampling]
        rows = self._model.forward(scheduled)
        best = rows[:, : self._vocabulary_size].argmax(axis=1).tolist()
        for item in scheduled:
            item.sequence.computed += item.count
        self._costs.record_pass(sum(item.count for item in scheduled), self._clock() - started_at)
        return list(zip(ready, best, strict=True))


def _own_sequence(source: Sequence, slot: int, tokens: list[int]) -> Sequence:
    """The draft model's sequence for `source`, with the fields that its model reads."""
    return Sequence(
        request=source.request,
        index=source.index,
        tokens=tokens,
        max_length=source.max_length,
        arrived_at=source.arrived_at,
        slot=slot,
    )
