"""Acceptance rate of drafts: exponentially weighted, with a prior. Pure."""

from collections.abc import Sequence

from llm_backend.engine.kv_cache.common_prefix import common_prefix_length

_WEIGHT = 6.0  # weight of the prior, in trials
_DECAY = 0.97  # a trial counts half after about 23 more


class AcceptanceRate:
    """An estimate between 0 and 1. Its prior is a number or a more general rate, which counts
    the trials of this one too."""

    def __init__(self, prior: "float | AcceptanceRate") -> None:
        self._prior = prior
        self._accepted = 0.0
        self._trials = 0.0

    @property
    def value(self) -> float:
        """The estimated rate."""
        general = self._prior
        if isinstance(general, AcceptanceRate):
            general = general.value
        return (self._accepted + _WEIGHT * general) / (self._trials + _WEIGHT)

    def count(self, is_accepted: bool) -> None:
        """Counts a trial."""
        self._accepted = self._accepted * _DECAY + is_accepted
        self._trials = self._trials * _DECAY + 1
        if isinstance(self._prior, AcceptanceRate):
            self._prior.count(is_accepted)

    def count_draft(self, draft: Sequence[int], appended: Sequence[int]) -> int:
        """Counts the tokens of a draft that were `appended` to its text, and the first one that was
        not. Returns the number of accepted tokens."""
        accepted = common_prefix_length(draft, appended)
        for _ in range(accepted):
            self.count(True)
        if accepted < min(len(draft), len(appended)):
            self.count(False)
        return accepted

    def reset(self) -> None:
        """Resets to the prior."""
        self._accepted = self._trials = 0.0
