"""Guesses how a text goes on, and how likely each guess is right. Pure.

Every answer keeps a guess of its next token, whether it is computed ahead or not: so the chances
are learnt for nothing while nothing is computed ahead, and guessing comes back when it is worth it.
"""

from bisect import bisect_right
from collections.abc import Sequence as Tokens

from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.prompt_lookup import PromptLookup

__all__ = ["Chances", "Guesser"]

_LENGTHS = (3, 4, 6, 9, 17)  # of repetitions: where another estimate begins
_AT_FIRST = (0.3, 0.5, 0.6, 0.75, 0.9, 0.95)  # the chance of a guess before any was made
_HOPELESS = 0.02  # a chance that no processor makes worth a token


class Chances:
    """How often guesses are right, by the length of the repetition they continue."""

    def __init__(self, general: "Chances | None" = None) -> None:
        before = _AT_FIRST if general is None else general._rates
        self._rates: list[AcceptanceRate] = [AcceptanceRate(rate) for rate in before]

    def count(self, length: int, is_right: bool) -> None:
        """A guess was right or wrong."""
        self._rates[bisect_right(_LENGTHS, length)].count(is_right)

    def of(self, length: int) -> float:
        """The chance of a guess."""
        return self._rates[bisect_right(_LENGTHS, length)].value


class Guesser:
    """Guesses how one text goes on. `predicted_right` counts the tokens that a prediction given
    with the request had right."""

    def __init__(self, tokens: Tokens[int], chances: Chances, prediction: Tokens[int]) -> None:
        self._lookup = PromptLookup(prediction)
        self._lookup.extend(tokens)
        self._lookup.begin()
        self._chances = Chances(chances)
        self._match = self._lookup.match()
        self.predicted_right = 0

    def push(self, token: int) -> None:
        """The text goes on with `token`."""
        guess = None if self._match is None else self._lookup.at(self._match[0])
        self._lookup.push(token)
        if self._match is None or guess is None:
            self._match = self._lookup.match()
            return
        place, length = self._match
        self._chances.count(length, guess == token)
        if guess != token:
            self._match = self._lookup.match()
            return
        self.predicted_right += self._lookup.is_prediction(place)
        self._match = (place + 1, length + 1)

    def chances(self, count: int) -> list[float]:
        """For up to `count` tokens ahead the chance that all up to there are guessed right, as far
        as there is one."""
        if self._match is None:
            return []
        place, length = self._match
        found, chance = [], 1.0
        for ahead in range(len(self._lookup.continuation(place, count))):
            chance *= self._chances.of(length + ahead)
            if chance < _HOPELESS:
                break
            found.append(chance)
        return found

    def guess(self, count: int) -> list[int]:
        """The next `count` tokens, or as many as can be guessed."""
        return [] if self._match is None else self._lookup.continuation(self._match[0], count)
