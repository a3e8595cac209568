"""Load balancing: weighted least outstanding requests (pure)."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Weighed(Protocol):
    """Target of load balancing: its outstanding requests, and its weight."""

    @property
    def name(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def outstanding(self) -> int: ...


Candidate = TypeVar("Candidate", bound=Weighed)


class Balance:
    """Chooses the fewest outstanding requests per weight; among equals by weighted round-robin.

    The round-robin is stride scheduling: each choice adds 1/weight to the target's next turn. A
    target that was absent continues at the present turn, so that it gets no burst to catch up.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}
        self._now = 0.0

    def choose(self, candidates: Iterable[Candidate]) -> Candidate:
        """Returns the next target; `candidates` must not be empty."""
        chosen = min(candidates, key=lambda one: (one.outstanding / one.weight, self._turn(one)))
        self._now = self._turn(chosen)
        self._turns[chosen.name] = self._now + 1 / chosen.weight
        return chosen

    def _turn(self, candidate: Weighed) -> float:
        return max(self._turns.get(candidate.name, 0.0), self._now)
