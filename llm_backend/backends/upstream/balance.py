"""Which of several upstreams is asked next (pure)."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["Balance", "Weighed"]


class Weighed(Protocol):
    """What is balanced over: requests that are out, and how many of them it is worth."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def outstanding(self) -> int: ...


Candidate = TypeVar("Candidate", bound=Weighed)


class Balance:
    """Least outstanding requests for its weight; among equals, whose turn it is by weight.

    Turns are strides: being chosen moves one's next turn back by 1/weight. Who was away returns at
    the present turn, so that nobody is flooded to make up for it.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}
        self._now = 0.0

    def choose(self, candidates: Iterable[Candidate]) -> Candidate:
        """The next one; there must be one."""
        chosen = min(candidates, key=lambda one: (one.outstanding / one.weight, self._turn(one)))
        self._now = self._turn(chosen)
        self._turns[chosen.name] = self._now + 1 / chosen.weight
        return chosen

    def _turn(self, candidate: Weighed) -> float:
        return max(self._turns.get(candidate.name, 0.0), self._now)
