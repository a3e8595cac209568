"""Draft length: how many tokens to draft for each sequence. No clock is read: times are arguments.

Drafted tokens are computed in the same pass as the token they follow. Accepted ones save a pass
each; the others were computed for nothing. Both sides are estimated, and tokens are drafted while
that brings more tokens in less time: many where a text is copied, none where nothing repeats or the
processor is busy already. A draft model's tokens replace those of prompt lookup where that is
faster still.
"""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Texts
from dataclasses import replace

from llm_backend.engine.scheduling.scheduler import ScheduledTokens
from llm_backend.engine.scheduling.sequence import Sequence
from llm_backend.engine.speculation.draft_model import Drafter
from llm_backend.engine.speculation.draft_planning import DraftCosts, DraftTarget, drafts_to_write
from llm_backend.engine.speculation.guesser import Chances, Guesser
from llm_backend.engine.speculation.pass_costs import PassCosts

__all__ = ["Speculation", "drafts_worth"]

_MARGIN = 1.05  # by how much a pass with drafts must be better: both sides are estimates
_AHEAD = 64  # expected length of an answer, until it is longer


class Speculation:
    """Speculative decoding of one worker: at most `draft_tokens` a sequence, by prompt lookup or
    by `drafter`."""

    def __init__(self, draft_tokens: int, drafter: Drafter | None = None) -> None:
        self._draft_tokens = draft_tokens
        self._drafter = drafter
        self.chances = Chances()
        self._costs = PassCosts()
        self._seen_drafting_s = 0.0

    def measured(self, tokens: int, seconds: float) -> None:
        """Update the cost of passes by one that took `seconds`, with the drafts made for it."""
        if self._drafter is not None:
            before_s, self._seen_drafting_s = self._seen_drafting_s, self._drafter.busy_s
            seconds -= self._seen_drafting_s - before_s
        self._costs.measured(tokens, seconds)

    def with_drafts(
        self, work: list[ScheduledTokens], guessers: Mapping[Sequence, Guesser], room: int
    ) -> list[ScheduledTokens]:
        """Returns `work` with the drafts that are worth computing, at most `room` tokens of
        them."""
        if room < 1:
            return work
        chances = [
            guessers[item.sequence].chances(self._most(item)) if item.sequence in guessers else []
            for item in work
        ]
        counts = self._guesses_worth(work, chances, room) if any(chances) else [0] * len(work)
        written = self._written(work, chances, counts, room)
        return [
            replace(item, draft=written[item.sequence])
            if item.sequence in written
            else replace(item, draft=tuple(guessers[item.sequence].guess(count)))
            if count
            else item
            for item, count in zip(work, counts, strict=True)
        ]

    def _guesses_worth(
        self, work: list[ScheduledTokens], chances: list[list[float]], room: int
    ) -> list[int]:
        return drafts_worth(
            chances,
            targets=sum(item.catches_up for item in work),
            tokens=sum(item.count for item in work),
            room=room,
            cost=self._costs.of,
        )

    def _written(
        self, work: list[ScheduledTokens], chances: list[list[float]], counts: list[int], room: int
    ) -> dict[Sequence, tuple[int, ...]]:
        """Drafts of the draft model, where they are faster than so many guesses; none while it
        has too many tokens to prefill first."""
        drafter = self._drafter
        if drafter is None:
            return {}
        targets = {
            item.sequence: self._target(drafter, item, found[:count])
            for item, found, count in zip(work, chances, counts, strict=True)
            if item.sequence.uncomputed_tokens == 1
        }
        lengths = drafts_to_write(
            list(targets.values()),
            tokens=sum(item.count for item in work),
            room=room,
            costs=DraftCosts(model=self._costs.of, draft=drafter.cost),
        )
        wanted = {target: length for target, length in zip(targets, lengths, strict=True) if length}
        if not wanted:
            drafter.rest()
            return {}
        return drafter.write(wanted)

    def _target(self, drafter: Drafter, item: ScheduledTokens, chances: list[float]) -> DraftTarget:
        sequence = item.sequence
        chance, unread = drafter.look(sequence)
        return DraftTarget(
            chance=chance,
            unread=unread,
            most=min(self._most(item), drafter.most(sequence)),
            ahead=min(sequence.limit - len(sequence.tokens), max(_AHEAD, sequence.generated)),
            guesses=len(chances),
            expected=sum(chances),
            guess_chance=chances[0] if chances else 0.0,
        )

    def _most(self, item: ScheduledTokens) -> int:
        """Maximum useful draft length: the last token of an answer is never computed."""
        return max(0, min(self._draft_tokens, item.sequence.limit - len(item.sequence.tokens) - 1))


def drafts_worth(
    chances: Texts[Texts[float]],
    *,
    targets: int,
    tokens: int,
    room: int,
    cost: Callable[[int], float],
) -> list[int]:
    """Number of guesses of each text to compute in a pass that samples `targets` tokens and
    computes `tokens` without drafts. `chances` are those of each text, falling; `room` limits
    their number."""
    ranked = sorted((chance for each in chances for chance in each), reverse=True)[:room]
    best, least, expected = targets / cost(tokens) * _MARGIN, 2.0, float(targets)
    for count, chance in enumerate(ranked, start=1):
        expected += chance
        speed = expected / cost(tokens + count)
        if speed > best:
            best, least = speed, chance
    counts = [sum(chance > least for chance in each) for each in chances]
    left = sum(chance >= least for chance in ranked) - sum(counts)
    for place, each in enumerate(chances):  # of those that are equal only as many as were counted
        equal = min(each.count(least), left)
        counts[place] += equal
        left -= equal
    return counts
