"""Interface of the vector index, with its own value types.

A *collection* has vectors of one size. A point is a piece of a document (the text of one file): its
vector, its words, and the document's attributes, by which searches are filtered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Attribute = str | float | bool
Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]


class IndexFailure(Exception):
    """The index has failed."""


class IndexUnavailable(IndexFailure):
    """The index cannot be reached or opened now; the message has the reason."""


class IndexBusy(IndexUnavailable):
    """Another process owns the index."""


class NoCollection(IndexUnavailable):
    """A collection that should exist is missing."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"The vectors of `{collection}` are not in this vector index. Servers that share a "
            "database need a Qdrant server: set `qdrant_url`."
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compares an attribute of the document with a value, or for `in` and `nin` with several. `ne`
    and `nin` also hold for a missing attribute."""

    key: str
    operator: Operator
    value: Attribute | Sequence[Attribute]


@dataclass(frozen=True, kw_only=True)
class AllOf:
    """True if all conditions hold."""

    conditions: Sequence["Condition"]


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """True if at least one condition holds."""

    conditions: Sequence["Condition"]


Condition = Comparison | AllOf | AnyOf


@dataclass(frozen=True, kw_only=True)
class SparseVector:
    """A sparse vector: ids of words, and the weight of each."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class IndexPoint:
    """A piece of a document. `id` is a UUID."""

    id: str
    document: str
    vector: Sequence[float]
    words: SparseVector
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoredPoint:
    """A point and its score: cosine similarity, or BM25."""

    id: str
    score: float


class VectorIndex(Protocol):
    """A vector index. All methods may raise `IndexUnavailable`; writes are durable when they
    return. A missing collection raises `NoCollection`, except in `drop` and `remove`."""

    async def name(self) -> str:
        """Returns an identifier of the index, unique and permanent."""

    async def create(self, collection: str, dimensions: int) -> None:
        """Creates an empty collection unless it exists."""

    async def drop(self, collection: str) -> None:
        """Deletes a collection with its points."""

    async def upsert(self, collection: str, points: Sequence[IndexPoint]) -> None:
        """Inserts points, or replaces those with the same ids."""

    async def remove(self, collection: str, document: str) -> None:
        """Deletes the points of a document."""

    async def set_attributes(
        self, collection: str, document: str, attributes: Mapping[str, Attribute]
    ) -> None:
        """Replaces the attributes of a document's points."""

    async def search_vectors(
        self, collection: str, vector: Sequence[float], *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the points with the highest cosine similarity to the vector."""

    async def search_keywords(
        self, collection: str, words: SparseVector, *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the points with the highest BM25 score for these words."""

    async def check(self) -> None:
        """Raises `IndexUnavailable` unless the index can be used."""

    async def close(self) -> None:
        """Closes the index."""
