"""Base class of drafters (a draft model, a draft head): costs, and when estimates are reset."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from llm_backend.engine.model import CellsExhausted, DecodeError
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.pass_costs import PassCosts

_log = logging.getLogger("llm_backend.engine.speculation")
_PRIOR = 0.7  # prior of the acceptance rate
_RETRY_PASSES = 500  # passes without a draft after which it is tried again


class DraftSource(ABC):
    """Drafts tokens by passes of its own. `busy_s` is the time they took."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = AcceptanceRate(_PRIOR)
        self._costs = PassCosts()
        self._skipped_passes = 0  # passes since it drafted anything
        self._is_broken = False
        self.busy_s = 0.0

    def cost(self, tokens: int) -> float:
        """Cost in seconds of a pass of `tokens`; 0 until a pass of at most that size has been
        measured, so that drafting is tried."""
        smallest = self._costs.smallest_measured
        return 0.0 if smallest is None or tokens < smallest else self._costs.cost(tokens)

    def skip_pass(self) -> None:
        """Notes that nothing is drafted in this pass. After many such passes the estimates are
        reset, because texts and the machine's load change."""
        self._skipped_passes += 1
        if self._skipped_passes % _RETRY_PASSES == 0:
            self._rate.reset()
            self._costs = PassCosts()

    def record_hidden_states(self, scheduled: list[ScheduledTokens]) -> None:  # noqa: B027 # few do
        """Takes what it needs of the model's pass that has just computed `scheduled`."""

    @abstractmethod
    def draft_limit(self, sequence: Sequence) -> int:
        """Maximum number of tokens that it could draft for a sequence; none for one with media."""

    @abstractmethod
    def follow(self, sequence: Sequence) -> tuple[float, int]:
        """Follows a sequence; returns the acceptance rate of the next drafted token, and how many
        tokens must be computed before."""

    def draft(self, counts: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Drafts this number of tokens for sequences that were followed; none for those with more
        uncomputed tokens than one call computes. After an error, nothing is drafted any more."""
        self._skipped_passes = 0
        with self._drafting():
            return self._draft(counts)
        return {}

    @contextmanager
    def _drafting(self) -> Iterator[None]:
        """Measures the time of native passes, and handles their errors."""
        started_at = self._clock()
        try:
            yield
        except (DecodeError, CellsExhausted):
            _log.exception("engine.draft_failed")
            self._is_broken = True
        finally:
            self.busy_s += self._clock() - started_at

    @abstractmethod
    def _draft(self, counts: Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        """Drafts as `draft`. Raises `DecodeError` or `CellsExhausted`."""

    @abstractmethod
    def copy(self, source: int, target: int) -> None:
        """Copies the cells of slot `source` to slot `target`."""

    @abstractmethod
    def clear(self, slot: int) -> None:
        """Empties a slot whose cells may be wrong."""
