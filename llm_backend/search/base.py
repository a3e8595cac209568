"""What is asked of a vector index, in values of our own.

A *collection* has vectors of one size. A point in it is a piece of a document: its vector, the
words it holds, and the document's attributes, by which searches are narrowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = [
    "Attribute",
    "Comparison",
    "Condition",
    "Every",
    "Found",
    "IndexBusy",
    "IndexFailure",
    "IndexPoint",
    "IndexUnavailable",
    "NoCollection",
    "Some",
    "Sparse",
    "VectorIndex",
]

Attribute = str | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]


class IndexFailure(Exception):
    """The index does not do what it is asked."""


class IndexUnavailable(IndexFailure):
    """It cannot be reached or opened now; the message says why."""


class IndexBusy(IndexUnavailable):
    """Another process has it."""


class NoCollection(IndexUnavailable):
    """There should be a collection of this name, and there is none."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"The vectors of `{collection}` are not in this vector index. Servers that share a "
            "database need a Qdrant server: set `qdrant_url`."
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An attribute of the document against a value, or against several for `in` and `nin`. `ne` and
    `nin` also hold where there is no such attribute."""

    key: str
    operator: Operator
    value: Attribute | Sequence[Attribute]


@dataclass(frozen=True, kw_only=True)
class Every:
    """All of these hold."""

    conditions: Sequence["Condition"]


@dataclass(frozen=True, kw_only=True)
class Some:
    """At least one of these holds."""

    conditions: Sequence["Condition"]


Condition = Comparison | Every | Some


@dataclass(frozen=True, kw_only=True)
class Sparse:
    """The words of a text: numbers that stand for words, and how much each tells."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class IndexPoint:
    """A piece of a document. `id` is a UUID."""

    id: str
    document: str
    vector: Sequence[float]
    words: Sparse
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A point and its score: the cosine, or what its words tell."""

    id: str
    score: float


class VectorIndex(Protocol):
    """An index. All methods may raise `IndexUnavailable`; what they have written is durable when
    they return. A collection that does not exist is a `NoCollection`, but to who removes."""

    async def name(self) -> str:
        """What tells it from other indexes, as long as it is kept."""

    async def create(self, collection: str, dimensions: int) -> None:
        """Make an empty collection unless it exists."""

    async def drop(self, collection: str) -> None:
        """Remove a collection and all that it holds."""

    async def put(self, collection: str, points: Sequence[IndexPoint]) -> None:
        """Insert points, or replace those with the same ids."""

    async def remove(self, collection: str, document: str) -> None:
        """Remove the points of a document."""

    async def describe(
        self, collection: str, document: str, attributes: Mapping[str, Attribute]
    ) -> None:
        """Give the points of a document other attributes."""

    async def nearest(
        self, collection: str, vector: Sequence[float], *, limit: int, condition: Condition | None
    ) -> Sequence[Found]:
        """The points whose vectors are most like this one, by their cosine."""

    async def with_words(
        self, collection: str, words: Sparse, *, limit: int, condition: Condition | None
    ) -> Sequence[Found]:
        """The points that have the rarest of these words most often (BM25)."""

    async def check(self) -> None:
        """Returns if it can be used."""

    async def close(self) -> None:
        """Let go of it."""
