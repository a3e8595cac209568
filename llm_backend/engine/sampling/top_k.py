"""Top-k selection: the largest values of a row, found without sorting it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]
Indices = NDArray[np.intp]

_FIRST_COUNT = 1024  # values checked before more are: a nucleus is rarely larger
_GROUP = 64  # size of the groups whose peaks locate the largest values


def top_k(values: Row, count: int) -> Indices:
    """Indices of the `count` largest of `values` [vocab] float32, largest first: [count] intp.

    They lie in the `count` groups with the largest peaks, so only those groups are searched. The
    row is viewed as [64, groups], and a group is a column of it: the maximum over axis 0 reads
    memory in order, which is fastest.
    """
    if count * _GROUP * 4 > len(values):
        return _partition(values, np.arange(len(values)), count)
    groups = len(values) // _GROUP
    peaks = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    best = np.argpartition(peaks, groups - count)[groups - count :]
    members = (np.sort(best) + groups * np.arange(_GROUP)[:, None]).ravel()
    indices = np.concatenate((members, np.arange(groups * _GROUP, len(values))))
    return _partition(values, indices, count)


def largest_until(values: Row, is_enough: Callable[[Indices], bool]) -> Indices:
    """Indices of the largest `values` ([vocab] float32), largest first: as many as are enough,
    or more."""
    count = _FIRST_COUNT
    while count < len(values):
        indices = top_k(values, count)
        if is_enough(indices):
            return indices
        count *= 8
    return top_k(values, len(values))


def _partition(values: Row, indices: Indices, count: int) -> Indices:
    """The `count` of `indices` with the largest values, largest first."""
    found = values[indices]
    if count < len(indices):
        likely = np.argpartition(found, len(indices) - count)[len(indices) - count :]
        indices, found = indices[likely], found[likely]
    order: Indices = indices[np.argsort(-found, kind="stable")]
    return order
