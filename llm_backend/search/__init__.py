"""Vector index: similarity search over texts, embedded or on a server, behind one interface."""

from llm_backend.search.base import (
    Attribute,
    Comparison,
    Condition,
    Every,
    Found,
    IndexBusy,
    IndexFailure,
    IndexPoint,
    IndexUnavailable,
    NoCollection,
    Some,
    Sparse,
    VectorIndex,
)
from llm_backend.search.embedded import EmbeddedIndex
from llm_backend.search.fusion import FusedPoint, Weights, fuse
from llm_backend.search.keywords import words_of_query, words_of_text

__all__ = [
    "Attribute",
    "Comparison",
    "Condition",
    "EmbeddedIndex",
    "Every",
    "Found",
    "FusedPoint",
    "IndexBusy",
    "IndexFailure",
    "IndexPoint",
    "IndexUnavailable",
    "NoCollection",
    "Some",
    "Sparse",
    "VectorIndex",
    "Weights",
    "fuse",
    "words_of_query",
    "words_of_text",
]
