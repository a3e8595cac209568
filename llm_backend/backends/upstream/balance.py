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

    The round-robin is stride scheduling: each choice adds 1/weight to the virtual time of the
    target, and the earliest is next. A target that was absent continues at the present time, so
    that it gets no burst to catch up.
    """

    def __init__(self) -> None:
        self._times: dict[str, float] = {}  # virtual, by name
        self._now = 0.0

    def choose(self, candidates: Iterable[Candidate]) -> Candidate:
        """Returns the next target; `candidates` must not be empty."""
        chosen = min(candidates, key=lambda one: (one.outstanding / one.weight, self._time(one)))
        self._now = self._time(chosen)
        self._times[chosen.name] = self._now + 1 / chosen.weight
        return chosen

    def _time(self, candidate: Weighed) -> float:
        return max(self._times.get(candidate.name, 0.0), self._now)
