"""How often something comes true. Pure."""

__all__ = ["AcceptanceRate"]

_WEIGHT = 6.0  # times that what was believed before is worth
_FORGETTING = 0.97  # one counts half after about 23 more


class AcceptanceRate:
    """An estimate between 0 and 1: at first a number, or what a more general rate says, which
    learns whatever this one learns."""

    def __init__(self, at_first: "float | AcceptanceRate") -> None:
        self._at_first = at_first
        self._right = 0.0
        self._made = 0.0

    @property
    def value(self) -> float:
        """How often it comes true, as far as is known."""
        general = self._at_first
        if isinstance(general, AcceptanceRate):
            general = general.value
        return (self._right + _WEIGHT * general) / (self._made + _WEIGHT)

    def count(self, is_right: bool) -> None:
        """It came true or not."""
        self._right = self._right * _FORGETTING + is_right
        self._made = self._made * _FORGETTING + 1
        if isinstance(self._at_first, AcceptanceRate):
            self._at_first.count(is_right)

    def forget(self) -> None:
        """Believe what was believed at first."""
        self._right = self._made = 0.0
