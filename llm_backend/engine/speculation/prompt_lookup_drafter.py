"""Drafts the next tokens of a text by prompt lookup, with the acceptance rate of each draft. Pure.

Every answer keeps a draft of its next token, whether a pass computes it or not. So
acceptance rates are learnt at no cost while nothing is drafted, and drafting resumes when it is
worth it.
"""

from bisect import bisect_right

from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.prompt_lookup import PromptLookup

_LENGTHS = (3, 4, 6, 9, 17)  # bounds of the ranges of repetition lengths with a rate each
_PRIORS = (0.3, 0.5, 0.6, 0.75, 0.9, 0.95)  # initial rate of each range
_LEAST_PROBABILITY = 0.02  # with less, drafting does not pay on any processor


class LookupRates:
    """Acceptance rates of drafts, by the length of the repetition they continue."""

    def __init__(self, general: "LookupRates | None" = None) -> None:
        before = _PRIORS if general is None else general._rates
        self._rates: list[AcceptanceRate] = [AcceptanceRate(rate) for rate in before]

    def count(self, length: int, is_right: bool) -> None:
        """Counts a draft of one token."""
        self._rates[bisect_right(_LENGTHS, length)].count(is_right)

    def of(self, length: int) -> float:
        """The acceptance rate of such a draft."""
        return self._rates[bisect_right(_LENGTHS, length)].value


class PromptLookupDrafter:
    """Drafts the next tokens of one text. `predicted_tokens` counts the tokens that the
    request's prediction foretold."""

    def __init__(self, lookup: PromptLookup, rates: LookupRates) -> None:
        self._lookup = lookup
        self._rates = LookupRates(rates)
        self._match = self._lookup.match()
        self.predicted_tokens = 0

    def push(self, token: int) -> None:
        """Appends `token` to the text."""
        drafted = None if self._match is None else self._lookup.token_at(self._match[0])
        self._lookup.push(token)
        if self._match is None or drafted is None:
            self._match = self._lookup.match()
            return
        index, length = self._match
        self._rates.count(length, drafted == token)
        if drafted != token:
            self._match = self._lookup.match()
            return
        self.predicted_tokens += self._lookup.is_prediction(index)
        self._match = (index + 1, length + 1)

    def probabilities(self, count: int) -> list[float]:
        """For each of up to `count` drafted tokens, the probability that it and all before
        it are right."""
        if self._match is None:
            return []
        index, length = self._match
        found, chance = [], 1.0
        for ahead in range(len(self._lookup.continuation(index, count))):
            chance *= self._rates.of(length + ahead)
            if chance < _LEAST_PROBABILITY:
                break
            found.append(chance)
        return found

    def draft(self, count: int) -> list[int]:
        """The next `count` tokens, or as many as the repetition has."""
        return [] if self._match is None else self._lookup.continuation(self._match[0], count)
