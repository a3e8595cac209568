"""Top-k selection: the largest values of a row, found without sorting it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Places", "Row", "largest_until", "likeliest"]

Row = NDArray[np.float32]
Places = NDArray[np.intp]

_AT_FIRST = 1024  # values checked before more are: a nucleus is rarely larger
_GROUP = 64  # size of the groups whose peaks locate the largest values


def likeliest(values: Row, count: int) -> Places:
    """Indices of the `count` largest values, largest first.

    They lie in the `count` groups with the largest peaks, so only those groups are searched. A
    group is a column: its members are a stride apart, as peaks are found fastest along rows.
    """
    if count * _GROUP * 4 > len(values):
        return _partition(values, np.arange(len(values)), count)
    groups = len(values) // _GROUP
    peaks = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    best = np.argpartition(peaks, groups - count)[groups - count :]
    members = (np.sort(best) + groups * np.arange(_GROUP)[:, None]).ravel()
    places = np.concatenate((members, np.arange(groups * _GROUP, len(values))))
    return _partition(values, places, count)


def largest_until(values: Row, is_enough: Callable[[Places], bool]) -> Places:
    """Indices of the largest values, largest first, as many as are enough, and maybe more."""
    count = _AT_FIRST
    while count < len(values):
        places = likeliest(values, count)
        if is_enough(places):
            return places
        count *= 8
    return likeliest(values, len(values))


def _partition(values: Row, places: Places, count: int) -> Places:
    """The `count` of `places` with the largest values, largest first."""
    found = values[places]
    if count < len(places):
        likely = np.argpartition(found, len(places) - count)[len(places) - count :]
        places, found = places[likely], found[likely]
    order: Places = places[np.argsort(-found, kind="stable")]
    return order
