"""Vector index: similarity search over texts, embedded or on a server, behind one interface.

base.py        the interface and its values
embedded/      an index in this process
qdrant.py      an index on a Qdrant server
conditions.py  filters in Qdrant's terms
keywords.py    words as sparse vectors, for BM25
fusion.py      two rankings as one
"""

from llm_backend.search.base import (
    AllOf,
    AnyOf,
    Attribute,
    Comparison,
    Condition,
    IndexBusy,
    IndexFailure,
    IndexPoint,
    IndexUnavailable,
    NoCollection,
    ScoredPoint,
    VectorIndex,
)
from llm_backend.search.embedded import EmbeddedIndex
from llm_backend.search.fusion import FusedPoint, Weights, fuse
from llm_backend.search.keywords import query_keywords, text_keywords

__all__ = [
    "AllOf",
    "AnyOf",
    "Attribute",
    "Comparison",
    "Condition",
    "EmbeddedIndex",
    "FusedPoint",
    "IndexBusy",
    "IndexFailure",
    "IndexPoint",
    "IndexUnavailable",
    "NoCollection",
    "ScoredPoint",
    "VectorIndex",
    "Weights",
    "fuse",
    "query_keywords",
    "text_keywords",
]
