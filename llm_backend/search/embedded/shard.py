"""Shard: one collection in a folder. The only module that imports qdrant_edge.

A shard belongs to one thread at a time. There is no write-ahead log: writes are durable after
`flush`, and lost without a trace if the process dies before.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from llm_backend.search.base import Attribute, Condition, IndexPoint, ScoredPoint, SparseVector
from llm_backend.search.conditions import DOCUMENT, FilterBuilder, filter_of, payload_of

VECTOR, WORDS = "vector", "words"
HNSW_M, HNSW_EF_CONSTRUCT = 16, 128  # of the graph; recall 0.99 and better on 100,000 vectors
# Breadth of a search in the graph: costs half a millisecond, and helps hard queries.
HNSW_EF = 256
FULL_SCAN_KB = 10_000  # below this size scanning all vectors is as fast


class _EdgeFilterBuilder(FilterBuilder):
    def all_of(self, conditions: Sequence[Any]) -> edge.Filter:
        return edge.Filter(must=list(conditions))

    def one_of(self, conditions: Sequence[Any]) -> edge.Filter:
        # Qdrant treats an empty list as no condition
        if not conditions:
            return edge.Filter(must=[edge.HasIdCondition(set())])
        return edge.Filter(should=list(conditions))

    def none_of(self, conditions: Sequence[Any]) -> edge.Filter:
        return edge.Filter(must_not=list(conditions))

    def equals(self, key: str, value: str) -> edge.FieldCondition:
        return edge.FieldCondition(key=key, match=edge.MatchValue(value))

    def within(self, key: str, **bounds: float) -> edge.FieldCondition:
        return edge.FieldCondition(key=key, range=edge.RangeFloat(**bounds))


_FILTERS = _EdgeFilterBuilder()


class Shard:
    """An open collection. Errors of Qdrant are plain `Exception`."""

    def __init__(self, path: Path, dimensions: int | None = None) -> None:
        """Opens the shard at `path`, or creates one for vectors with this many `dimensions`."""
        if dimensions is None:
            self._shard = edge.EdgeShard.load(str(path))
        else:
            self._shard = edge.EdgeShard.create(str(path), _config(dimensions))

    def upsert(self, points: Sequence[IndexPoint]) -> None:
        """Inserts or replaces points."""
        self._shard.update(edge.UpdateOperation.upsert_points([_point(one) for one in points]))

    def remove(self, document: str) -> None:
        """Deletes a document's points."""
        self._shard.update(edge.UpdateOperation.delete_points_by_filter(_of(document)))

    def set_attributes(self, document: str, attributes: Mapping[str, Attribute]) -> None:
        """Replaces the attributes of a document's points."""
        payload = payload_of(document, attributes)
        self._shard.update(edge.UpdateOperation.set_payload_by_filter(_of(document), payload))

    def search_vectors(
        self, vector: Sequence[float], limit: int, condition: Condition | None
    ) -> list[ScoredPoint]:
        """Returns the most similar points."""
        return self._search(edge.Query.Nearest(list(vector), using=VECTOR), limit, condition)

    def search_keywords(
        self, words: SparseVector, limit: int, condition: Condition | None
    ) -> list[ScoredPoint]:
        """Returns the points with the highest BM25 score for these words."""
        query = edge.SparseVector(list(words.indices), list(words.values))
        return self._search(edge.Query.Nearest(query, using=WORDS), limit, condition)

    def count(self) -> int:
        """Returns the number of points."""
        return self._shard.count(edge.CountRequest())

    def optimize(self) -> None:
        """Builds the graph over new points and purges deleted ones. Holds the GIL meanwhile, for
        minutes if there are many."""
        while self._shard.optimize():
            pass

    def flush(self) -> None:
        """Makes writes durable."""
        self._shard.flush()

    def close(self) -> None:
        """Closes the shard; unflushed writes may be lost."""
        # The library raises plain `Exception`; the shard is closed anyway.
        with suppress(Exception):
            self._shard.close()

    def _search(self, query: Any, limit: int, condition: Condition | None) -> list[ScoredPoint]:
        request = edge.QueryRequest(
            limit=limit,
            query=query,
            filter=None if condition is None else filter_of(condition, _FILTERS),
            params=edge.SearchParams(hnsw_ef=HNSW_EF),
        )
        return [ScoredPoint(id=str(one.id), score=one.score) for one in self._shard.query(request)]


def _config(dimensions: int) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={VECTOR: edge.EdgeVectorParams(size=dimensions, distance=edge.Distance.Cosine)},
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=edge.HnswIndexConfig(
            m=HNSW_M,
            ef_construct=HNSW_EF_CONSTRUCT,
            full_scan_threshold=FULL_SCAN_KB,
            max_indexing_threads=1,
        ),
        optimizers=edge.EdgeOptimizersConfig(default_segment_number=1),
        max_search_threads=1,
        wal_enabled=False,
    )


def _point(point: IndexPoint) -> edge.Point:
    words = edge.SparseVector(list(point.words.indices), list(point.words.values))
    return edge.Point(
        point.id,
        {VECTOR: list(point.vector), WORDS: words},
        payload_of(point.document, point.attributes),
    )


def _of(document: str) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(key=DOCUMENT, match=edge.MatchValue(document))])
