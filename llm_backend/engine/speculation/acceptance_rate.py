"""Acceptance rate of drafts: exponentially weighted, with a prior. Pure."""

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

    def reset(self) -> None:
        """Resets to the prior."""
        self._accepted = self._trials = 0.0
