"""Acceptance rate of drafts: exponentially weighted, with a prior. Pure."""

__all__ = ["AcceptanceRate"]

_WEIGHT = 6.0  # of the prior, in trials
_FORGETTING = 0.97  # a trial counts half after about 23 more


class AcceptanceRate:
    """An estimate between 0 and 1. Its prior is a number or a more general rate, which counts
    the trials of this one too."""

    def __init__(self, at_first: "float | AcceptanceRate") -> None:
        self._at_first = at_first
        self._right = 0.0
        self._made = 0.0

    @property
    def value(self) -> float:
        """The estimated rate."""
        general = self._at_first
        if isinstance(general, AcceptanceRate):
            general = general.value
        return (self._right + _WEIGHT * general) / (self._made + _WEIGHT)

    def count(self, is_right: bool) -> None:
        """Count a trial."""
        self._right = self._right * _FORGETTING + is_right
        self._made = self._made * _FORGETTING + 1
        if isinstance(self._at_first, AcceptanceRate):
            self._at_first.count(is_right)

    def forget(self) -> None:
        """Reset to the prior."""
        self._right = self._made = 0.0
