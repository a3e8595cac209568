"""Thread count of the passes of one model, tuned by their measured cost. Pure: times are arguments.

The threads of a pass wait for each other several hundred times. If other processes use the same
cores, each wait lasts until a preempted thread runs again, and the pass takes many times as long as
with fewer threads. The processor time shows this: the threads get far less than the length of the
pass for each of them. Then a trial of fewer threads begins, and the cost of its passes decides.
Below the largest count, trials of more threads follow each other in growing intervals, which bounds
their cost while the machine stays busy.
"""

from dataclasses import dataclass
from math import ceil, inf

from llm_backend.engine.speculation.pass_costs import PassCosts

# share of granted processor time below which threads are starved; an idle machine grants 0.97
_STARVED = 0.75
_DECAY = 0.9  # factor of earlier processor times at each pass
_BETTER = 0.95  # largest relative cost at which fewer threads are adopted; for more threads it is 1
_WORSE = 2.0  # relative cost that ends a trial early
_SETTLING_PASSES = 8  # passes with a thread count before another count is tried
_TRIAL_PASSES = 4  # minimum number of passes of a trial
_TRIAL_S = 0.05  # minimum duration of a trial; a preempted thread waits for several milliseconds
_LONG_TRIAL_S = 0.5  # duration of a trial after which fewer passes are enough
_LARGEST_PASS = 1 << 20  # tokens
_HOPELESS_PASSES = 64  # passes without comparable cost that end a trial
_FEWER_AFTER_S = 0.1  # duration of passes before fewer threads are tried
_MORE_AFTER_S = 1.0  # duration of passes before more threads are tried
# longest interval between trials of fewer threads while threads are starved
_FEWER_AT_LEAST_EVERY_S = 4.0
_MORE_AT_LEAST_EVERY_S = 16.0  # longest interval between trials of more threads


class _Interval:
    """Seconds of passes before the next trial in one direction."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = self.seconds = first_s
        self._longest_s = longest_s

    def reset(self) -> None:
        self.seconds = self._first_s

    def grow(self, factor: int = 2) -> None:
        self.seconds = min(factor * self.seconds, self._longest_s)

    def shrink(self) -> None:
        self.seconds = max(self.seconds / 2, self._first_s)


@dataclass(kw_only=True)
class _Trial:
    """A trial of another thread count: `seconds` of its passes, and `expected_s` of passes of the
    same sizes with the current count."""

    candidate: int  # index of a thread count
    cost_limit: float  # highest cost, relative to the current count's, for adoption
    costs: PassCosts
    compared: int = 0
    not_compared: int = 0
    seconds: float = 0.0
    expected_s: float = 0.0

    @property
    def is_over(self) -> bool:
        """True if enough passes were compared."""
        is_enough = self.compared >= _TRIAL_PASSES and self.expected_s >= _TRIAL_S
        return is_enough or self.expected_s >= _LONG_TRIAL_S

    @property
    def is_better(self) -> bool:
        """True if the passes cost little enough to adopt the count."""
        return self.seconds < self.cost_limit * self.expected_s

    @property
    def is_hopeless(self) -> bool:
        """True if the passes cost too much already, or cannot be compared."""
        is_too_slow = self.seconds > _WORSE * max(self.expected_s, _TRIAL_S)
        return is_too_slow or self.not_compared >= _HOPELESS_PASSES


class ThreadCountTuner:
    """Chooses the thread count of the next pass, from 1 to `maximum`."""

    def __init__(self, maximum: int) -> None:
        self._candidates = _candidates(maximum)
        self._candidate = 0
        self._costs = _costs()
        self._trial: _Trial | None = None
        self._fewer = _Interval(_FEWER_AFTER_S, _FEWER_AT_LEAST_EVERY_S)
        self._more = _Interval(_MORE_AFTER_S, _MORE_AT_LEAST_EVERY_S)
        self._passes = 0  # with the current count
        self._seconds = 0.0
        self._requested_s = 0.0
        self._granted_s = 0.0

    @property
    def current(self) -> int:
        """Thread count for the next pass."""
        return self._candidates[self._candidate if self._trial is None else self._trial.candidate]

    def record_pass(self, tokens: int, seconds: float, cpu_s: float) -> None:
        """Updates the costs by a pass of this number of tokens with the current count; `cpu_s`
        is the processor time of all threads together."""
        if self._trial is not None:
            self._evaluate(self._trial, tokens, seconds)
            return
        self._costs.record_pass(tokens, seconds)
        self._passes += 1
        self._seconds += seconds
        self._requested_s = _DECAY * self._requested_s + seconds * self.current
        self._granted_s = _DECAY * self._granted_s + cpu_s
        if self._passes >= _SETTLING_PASSES or self._seconds >= _LONG_TRIAL_S:
            self._try_another()

    def _restart(self) -> None:
        """Restarts the measurement of the current count."""
        self._trial = None
        self._passes = 0
        self._seconds = 0.0
        self._requested_s = self._granted_s = 0.0

    def _try_another(self) -> None:
        is_starved = self._granted_s < _STARVED * self._requested_s
        can_fall = self._candidate + 1 < len(self._candidates)
        if is_starved and can_fall and self._seconds >= self._fewer.seconds:
            self._trial = _Trial(candidate=self._candidate + 1, cost_limit=_BETTER, costs=_costs())
            return
        if self._candidate and self._seconds >= self._more.seconds:
            self._trial = _Trial(candidate=self._candidate - 1, cost_limit=1.0, costs=_costs())

    def _evaluate(self, trial: _Trial, tokens: int, seconds: float) -> None:
        trial.costs.record_pass(tokens, seconds)
        if not self._costs.covers(tokens):
            trial.not_compared += 1
        else:
            trial.compared += 1
            trial.seconds += seconds
            trial.expected_s += self._costs.cost(tokens)
        if trial.is_over and trial.is_better:
            self._accept(trial)
        elif trial.is_over or trial.is_hopeless:
            (self._fewer if trial.candidate > self._candidate else self._more).grow()
            self._restart()

    def _accept(self, trial: _Trial) -> None:
        """Adopt the count of a trial. A fall lengthens the wait for the next rise by more than a
        rise shortens it, so that the count rarely alternates."""
        if trial.candidate > self._candidate:
            self._more.grow(4)
        else:
            self._more.shrink()
        self._fewer.reset()
        self._candidate, self._costs = trial.candidate, trial.costs
        self._restart()


def _costs() -> PassCosts:
    """Costs of passes of any size, outliers included: the longest ones show the cost of waiting
    for threads."""
    return PassCosts(largest=_LARGEST_PASS, outlier=inf)


def _candidates(maximum: int) -> list[int]:
    """Thread counts to try, descending to 1: first one fewer, then a quarter fewer each time."""
    candidates = [maximum]
    while candidates[-1] > 1:
        step = 1 if len(candidates) == 1 else ceil(candidates[-1] / 4)
        candidates.append(max(1, candidates[-1] - step))
    return candidates
