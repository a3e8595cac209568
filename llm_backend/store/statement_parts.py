"""Long lists in parts that one statement takes as its parameters or rows."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

V = TypeVar("V")

_VALUES_PER_STATEMENT = 500  # below the limits of both databases


def statement_parts(values: Sequence[V]) -> Iterator[Sequence[V]]:
    """The values in parts of at most as many as one statement takes, in their order."""
    for start in range(0, len(values), _VALUES_PER_STATEMENT):
        yield values[start : start + _VALUES_PER_STATEMENT]
