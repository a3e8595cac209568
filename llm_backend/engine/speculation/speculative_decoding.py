"""Speculative decoding: chooses the number of tokens to draft for each sequence; reads no clock.

Drafted tokens are computed in the same pass as the token they follow. Each accepted one saves a
pass; the others are wasted work, and their cells are truncated (rollback). Gain and cost are
estimated, and tokens are drafted while they raise the tokens per second: many where a text is
copied, none where nothing repeats or the processor is saturated. Tokens of a draft model or a draft
head replace those of prompt lookup where they are faster still.
"""

from collections import abc
from dataclasses import replace

from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.draft_planning import (
    MARGIN,
    DraftCosts,
    DraftTarget,
    choose_draft_lengths,
)
from llm_backend.engine.speculation.draft_source import DraftSource
from llm_backend.engine.speculation.pass_costs import PassCosts
from llm_backend.engine.speculation.prompt_lookup_drafter import LookupRates, PromptLookupDrafter

_REMAINING_TOKENS = 64  # expected to follow; a longer answer is expected to double


class SpeculativeDecoding:
    """Speculative decoding of one worker: prompt lookup or `drafter` drafts at most `draft_tokens`
    of a sequence in a pass."""

    def __init__(self, draft_tokens: int, drafter: DraftSource | None = None) -> None:
        self._draft_tokens = draft_tokens
        self._drafter = drafter
        self.lookup_rates = LookupRates()
        self._costs = PassCosts()
        self._counted_drafting_s = 0.0

    def record_pass(self, tokens: int, seconds: float) -> None:
        """Updates the costs of passes by one that took `seconds`, drafting included."""
        if self._drafter is not None:
            before_s, self._counted_drafting_s = self._counted_drafting_s, self._drafter.busy_s
            seconds -= self._counted_drafting_s - before_s
        self._costs.record_pass(tokens, seconds)

    def record_hidden_states(self, scheduled: list[ScheduledTokens]) -> None:
        """Gives the hidden states of a pass to the drafter."""
        if self._drafter is not None:
            self._drafter.record_hidden_states(scheduled)

    def add_drafts(
        self,
        scheduled: list[ScheduledTokens],
        lookup_drafters: abc.Mapping[Sequence, PromptLookupDrafter],
        capacity: int,
    ) -> list[ScheduledTokens]:
        """Returns `scheduled` with the drafts that are worth computing, of at most `capacity`
        tokens together."""
        if capacity < 1:
            return scheduled
        probabilities = [
            lookup_drafters[item.sequence].probabilities(self._draft_limit(item))
            if item.sequence in lookup_drafters
            else []
            for item in scheduled
        ]
        counts = (
            self._lookup_counts(scheduled, probabilities, capacity)
            if any(probabilities)
            else [0] * len(scheduled)
        )
        drafts = self._draft(scheduled, probabilities, counts, capacity)
        return [
            replace(item, draft=drafts[item.sequence])
            if item.sequence in drafts
            else replace(item, draft=tuple(lookup_drafters[item.sequence].draft(count)))
            if count
            else item
            for item, count in zip(scheduled, counts, strict=True)
        ]

    def _lookup_counts(
        self, scheduled: list[ScheduledTokens], probabilities: list[list[float]], capacity: int
    ) -> list[int]:
        return choose_lookup_counts(
            probabilities,
            sampled=sum(item.needs_sampling for item in scheduled),
            tokens=sum(item.count for item in scheduled),
            capacity=capacity,
            cost=self._costs.cost,
        )

    def _draft(
        self,
        scheduled: list[ScheduledTokens],
        probabilities: list[list[float]],
        counts: list[int],
        capacity: int,
    ) -> dict[Sequence, tuple[int, ...]]:
        """Returns drafts of the draft model or head where they are faster than the `counts` of
        lookup drafts; none while the drafter must prefill too many tokens first."""
        drafter = self._drafter
        if drafter is None:
            return {}
        targets = {
            item.sequence: self._target(drafter, item, found[:count])
            for item, found, count in zip(scheduled, probabilities, counts, strict=True)
            if item.sequence.uncomputed_tokens == 1
        }
        lengths = choose_draft_lengths(
            list(targets.values()),
            tokens=sum(item.count for item in scheduled),
            capacity=capacity,
            costs=DraftCosts(model=self._costs.cost, draft=drafter.cost),
        )
        counts_by_target = {
            target: length for target, length in zip(targets, lengths, strict=True) if length
        }
        if not counts_by_target:
            drafter.skip_pass()
            return {}
        return drafter.draft(counts_by_target)

    def _target(
        self, drafter: DraftSource, item: ScheduledTokens, probabilities: list[float]
    ) -> DraftTarget:
        sequence = item.sequence
        acceptance_rate, uncomputed_tokens = drafter.follow(sequence)
        return DraftTarget(
            acceptance_rate=acceptance_rate,
            uncomputed_tokens=uncomputed_tokens,
            draft_limit=min(self._draft_limit(item), drafter.draft_limit(sequence)),
            remaining_tokens=min(sequence.room, max(_REMAINING_TOKENS, sequence.generated)),
            lookup_drafts=len(probabilities),
            expected_accepted=sum(probabilities),
            lookup_acceptance_rate=probabilities[0] if probabilities else 0.0,
        )

    def _draft_limit(self, item: ScheduledTokens) -> int:
        """Returns the maximum useful draft length: no pass computes an answer's last token."""
        return max(0, min(self._draft_tokens, item.sequence.room - 1))


def choose_lookup_counts(
    probabilities: abc.Sequence[abc.Sequence[float]],
    *,
    sampled: int,
    tokens: int,
    capacity: int,
    cost: abc.Callable[[int], float],
) -> list[int]:
    """Returns the number of drafted tokens of each text to compute in a pass that samples
    `sampled` tokens and computes `tokens` without drafts: at most `capacity` together.
    `probabilities` are those of each text's drafts, in falling order."""
    ranked = sorted((one for each in probabilities for one in each), reverse=True)[:capacity]
    best, threshold, expected = sampled / cost(tokens) * MARGIN, 2.0, float(sampled)
    for count, probability in enumerate(ranked, start=1):
        expected += probability
        speed = expected / cost(tokens + count)
        if speed > best:
            best, threshold = speed, probability
    counts = [sum(probability > threshold for probability in each) for each in probabilities]
    remaining = sum(probability >= threshold for probability in ranked) - sum(counts)
    # of the drafts with the least probability only as many as were counted
    for index, each in enumerate(probabilities):
        equal = min(each.count(threshold), remaining)
        counts[index] += equal
        remaining -= equal
    return counts
