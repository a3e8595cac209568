"""How many tokens to compute ahead of what is chosen. Pure: no clock is read, times are told.

Guessed tokens are computed in the same pass as the token they follow. Those that turn out to be
what would have been chosen anyway are tokens for less than a pass each; the others were computed
for nothing. Both sides are estimated, and guesses are made while they bring more tokens in less
time: many where a text is copied, none where nothing repeats or the processor is busy as it is.
"""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Texts
from dataclasses import replace

from llm_backend.engine.guesser import Chances, Guesser
from llm_backend.engine.pass_costs import PassCosts
from llm_backend.engine.scheduler import Work
from llm_backend.engine.sequence import Sequence
from llm_backend.engine.statistics import Statistics

__all__ = ["Speculation", "drafts_worth"]

_MARGIN = 1.05  # by how much a pass with guesses must be better: both sides are estimates


class Speculation:
    """What one worker has learnt; at most `draft_tokens` are guessed ahead of one sequence."""

    def __init__(self, draft_tokens: int) -> None:
        self._draft_tokens = draft_tokens
        self.chances = Chances()
        self._costs = PassCosts()
        self._seen = Statistics()

    def measured(self, statistics: Statistics) -> None:
        """Learn what the last pass cost."""
        seen, self._seen = self._seen, replace(statistics)
        if statistics.passes == seen.passes + 1:
            tokens = statistics.computed_tokens - seen.computed_tokens
            self._costs.measured(tokens, statistics.busy_s - seen.busy_s)

    def with_drafts(
        self, work: list[Work], guessers: Mapping[Sequence, Guesser], room: int
    ) -> list[Work]:
        """`work` with the guesses that are worth computing, at most `room` of them."""
        chances = [
            guessers[item.sequence].chances(self._most(item)) if item.sequence in guessers else []
            for item in work
        ]
        if room < 1 or not any(chances):
            return work
        counts = drafts_worth(
            chances,
            talkers=sum(item.catches_up for item in work),
            tokens=sum(item.count for item in work),
            room=room,
            cost=self._costs.of,
        )
        return [
            replace(item, draft=tuple(guessers[item.sequence].guess(count))) if count else item
            for item, count in zip(work, counts, strict=True)
        ]

    def _most(self, item: Work) -> int:
        """No more than can be used: the last token of an answer is never computed."""
        return max(0, min(self._draft_tokens, item.sequence.limit - len(item.sequence.tokens) - 1))


def drafts_worth(
    chances: Texts[Texts[float]],
    *,
    talkers: int,
    tokens: int,
    room: int,
    cost: Callable[[int], float],
) -> list[int]:
    """How many guesses of each text to compute in a pass that gives `talkers` tokens and computes
    `tokens` without any. `chances` are those of each text, falling; `room` bounds their number."""
    ranked = sorted((chance for each in chances for chance in each), reverse=True)[:room]
    best, least, expected = talkers / cost(tokens) * _MARGIN, 2.0, float(talkers)
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
