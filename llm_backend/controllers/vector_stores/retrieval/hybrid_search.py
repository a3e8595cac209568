"""Hybrid search in vector stores: dense vectors and sparse words, fused into one ranking."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from llm_backend.backends.base import Meter
from llm_backend.controllers.services.vector_store_services import (
    VectorStoreServices,
    translate_index_errors,
)
from llm_backend.controllers.vector_stores.ingestion.completeness import only_complete
from llm_backend.errors import InvalidRequest, NotFound, Unsupported
from llm_backend.search import Condition, FusedPoint, ScoredPoint, Weights, fuse, query_keywords
from llm_backend.store import Expired, StoredVectorStore
from llm_backend.store.vector_stores import Attribute, FoundChunk

Vectors = Sequence[Sequence[float]]

MIN_CANDIDATES = 50  # per ranking: a low rank in one may be a high rank in the other


@dataclass(frozen=True, kw_only=True)
class Query:
    """Search query. Without `weights` only the dense ranking counts, and a score is a cosine.
    `least_similarity` is the least cosine of a chunk from the dense ranking."""

    texts: Sequence[str]
    limit: int
    condition: Condition | None = None
    weights: Weights | None = field(default_factory=Weights)
    least_score: float = 0.0
    least_similarity: float = 0.0

    def with_texts(self, texts: Sequence[str]) -> "Query":
        """Returns the same query for other texts."""
        return replace(self, texts=texts)


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A search result. `similarity` is its cosine, None for a chunk found by its words only."""

    store_id: str
    file_id: str
    filename: str
    attributes: Mapping[str, Attribute]
    text: str
    score: float
    similarity: float | None


async def search(
    vector_stores: VectorStoreServices, store_ids: Sequence[str], query: Query, meter: Meter | None
) -> list[Hit]:
    """Returns the best chunks of the stores, best first; `meter` counts the embedding of the query.
    Raises `Missing` for an unknown store."""
    stores = await find_stores(vector_stores, store_ids)
    for store in stores:
        await vector_stores.stores.record_use(store)
    with_points = [store for store in stores if store.dimensions]
    models = dict.fromkeys(store.embedding_model for store in with_points)
    vectors = {model: await _vectors(vector_stores, model, query, meter) for model in models}
    searched = [(store, vectors[store.embedding_model]) for store in with_points]
    best, texts, stores_of = await _chunks(vector_stores, searched, query)
    if len(texts) < len(best):  # points without rows consumed part of the result limit
        complete = replace(query, condition=only_complete(query.condition))
        best, texts, stores_of = await _chunks(vector_stores, searched, complete)
    hits = [
        Hit(
            store_id=stores_of[one.id],
            file_id=texts[one.id].file_id,
            filename=texts[one.id].filename,
            attributes=texts[one.id].attributes,
            text=texts[one.id].text,
            score=one.score,
            similarity=one.similarity,
        )
        for one in best
        if one.id in texts and one.score >= query.least_score and _is_similar(one, query)
    ]
    return hits[: query.limit]


async def find_stores(
    vector_stores: VectorStoreServices, store_ids: Sequence[str]
) -> list[StoredVectorStore]:
    """Returns the stores that a search names, each once. Raises `Missing` for an unknown store, and
    `InvalidRequest` for an expired one."""
    stores = [await vector_stores.stores.get(id) for id in dict.fromkeys(store_ids)]
    for store in stores:
        _check(store, vector_stores)
    return stores


def _check(store: StoredVectorStore, vector_stores: VectorStoreServices) -> None:
    expires_at = store.expires_at
    if expires_at is not None and expires_at <= vector_stores.stores.now:
        raise InvalidRequest(str(Expired(store.id)))


def _is_similar(one: FusedPoint, query: Query) -> bool:
    return one.similarity is None or one.similarity >= query.least_similarity


async def _vectors(
    vector_stores: VectorStoreServices, model: str, query: Query, meter: Meter | None
) -> Vectors:
    embedder = await vector_stores.embedders.get(model)
    try:
        return await embedder.embed(query.texts, meter)
    except NotFound as error:  # of the model at its upstream; clients would miss the store
        raise Unsupported(error.message) from error


async def _chunks(
    vector_stores: VectorStoreServices,
    searched: Sequence[tuple[StoredVectorStore, Vectors]],
    query: Query,
) -> tuple[list[FusedPoint], dict[str, FoundChunk], dict[str, str]]:
    """Returns the best points of the stores, their chunks by point id, and their store ids."""
    with translate_index_errors():
        rankings = [
            await _rank(vector_stores, store, query, vectors) for store, vectors in searched
        ]
    best = sorted(chain.from_iterable(rankings), key=lambda one: -one.score)
    chunks = await vector_stores.stores.chunks([one.id for one in best])
    stores_of = {
        one.id: store.id
        for (store, _), ranking in zip(searched, rankings, strict=True)
        for one in ranking
    }
    return best, {chunk.point_id: chunk for chunk in chunks}, stores_of


async def _rank(
    vector_stores: VectorStoreServices, store: StoredVectorStore, query: Query, vectors: Vectors
) -> list[FusedPoint]:
    """Returns the best points of a store, each with its best score of all texts of the query."""
    rankings = await asyncio.gather(
        *(
            _rank_for_query(vector_stores, store, query, text, vector)
            for text, vector in zip(query.texts, vectors, strict=True)
        )
    )
    best: dict[str, FusedPoint] = {}
    for one in chain.from_iterable(rankings):
        if one.id not in best or best[one.id].score < one.score:
            best[one.id] = one
    return list(best.values())


async def _rank_for_query(
    vector_stores: VectorStoreServices,
    store: StoredVectorStore,
    query: Query,
    text: str,
    vector: Sequence[float],
) -> list[FusedPoint]:
    index, limit = vector_stores.index, max(MIN_CANDIDATES, 2 * query.limit)
    nearest = await index.search_vectors(store.id, vector, limit=limit, condition=query.condition)
    if query.weights is None:
        return [_without_fusion(found) for found in nearest]
    words = query_keywords(text)
    worded: Sequence[ScoredPoint] = ()
    if words.indices:
        worded = await index.search_keywords(
            store.id, words, limit=limit, condition=query.condition
        )
    return fuse(nearest, worded, query.weights)


def _without_fusion(found: ScoredPoint) -> FusedPoint:
    similarity = min(1.0, max(0.0, found.score))
    return FusedPoint(id=found.id, score=similarity, similarity=similarity)
