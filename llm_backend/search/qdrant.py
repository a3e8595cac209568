"""Vector index on a Qdrant server, shared by several processes and servers. The only module that
imports qdrant_client; it is imported only if a server is configured.

Each collection is a Qdrant collection. Writes return when Qdrant has applied them: they are
durable, and the next search sees them.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from llm_backend.search.base import (
    Attribute,
    Condition,
    IndexPoint,
    IndexUnavailable,
    NoCollection,
    ScoredPoint,
    SparseVector,
)
from llm_backend.search.conditions import DOCUMENT, FilterBuilder, filter_of, payload_of

VECTOR, WORDS = "vector", "words"
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_EF = 16, 128, 256  # as in the embedded index
TIMEOUT_S = 30
NAME = "qdrant"
_MISSING, _EXISTS = 404, 409


class _QdrantFilterBuilder(FilterBuilder):
    def all_of(self, conditions: Sequence[Any]) -> models.Filter:
        return models.Filter(must=list(conditions))

    def one_of(self, conditions: Sequence[Any]) -> models.Filter:
        # Qdrant treats an empty list as no condition
        if not conditions:
            return models.Filter(must=[models.HasIdCondition(has_id=[])])
        return models.Filter(should=list(conditions))

    def none_of(self, conditions: Sequence[Any]) -> models.Filter:
        return models.Filter(must_not=list(conditions))

    def equals(self, key: str, value: str) -> models.FieldCondition:
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))

    def within(self, key: str, **bounds: float) -> models.FieldCondition:
        return models.FieldCondition(key=key, range=models.Range(**bounds))


_FILTERS = _QdrantFilterBuilder()


class QdrantIndex:
    """Collections of a Qdrant server; there, their names begin with `prefix`. `connect` creates the
    client at the first call."""

    def __init__(self, connect: Callable[[], AsyncQdrantClient], *, prefix: str) -> None:
        self._connect = connect
        self._prefix = prefix
        self._client: AsyncQdrantClient | None = None

    @classmethod
    def at(cls, url: str, *, api_key: str | None, prefix: str) -> "QdrantIndex":
        """Creates the index at a server's URL."""
        return cls(
            lambda: AsyncQdrantClient(
                url=url, api_key=api_key, timeout=TIMEOUT_S, check_compatibility=False
            ),
            prefix=prefix,
        )

    async def name(self) -> str:
        """Returns a constant, not the URL: one server may have several URLs."""
        return NAME

    async def create(self, collection: str, dimensions: int) -> None:
        """Creates an empty collection unless it exists."""
        async with self._client_for(collection) as (client, name):
            if not await client.collection_exists(name):
                await _create_collection(client, name, dimensions)
            # Also in a collection that exists: an earlier call may have failed in between. Qdrant
            # changes nothing if the index exists.
            keyword = models.PayloadSchemaType.KEYWORD
            await client.create_payload_index(name, DOCUMENT, field_schema=keyword, wait=True)

    async def drop(self, collection: str) -> None:
        """Deletes a collection with its points."""
        with suppress(NoCollection):
            async with self._client_for(collection) as (client, name):
                await client.delete_collection(name)

    async def upsert(self, collection: str, points: Sequence[IndexPoint]) -> None:
        """Inserts or replaces points."""
        async with self._client_for(collection) as (client, name):
            await client.upsert(name, [_point(one) for one in points], wait=True)

    async def remove(self, collection: str, document: str) -> None:
        """Deletes a document's points."""
        with suppress(NoCollection):
            async with self._client_for(collection) as (client, name):
                await client.delete(name, _document_filter(document), wait=True)

    async def set_attributes(
        self, collection: str, document: str, attributes: Mapping[str, Attribute]
    ) -> None:
        """Replaces the attributes of a document's points."""
        payload = payload_of(document, attributes)
        async with self._client_for(collection) as (client, name):
            await client.set_payload(name, payload, points=_document_filter(document), wait=True)

    async def search_vectors(
        self, collection: str, vector: Sequence[float], *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the most similar points."""
        return await self._search(collection, list(vector), VECTOR, limit, condition)

    async def search_keywords(
        self, collection: str, words: SparseVector, *, limit: int, condition: Condition | None
    ) -> Sequence[ScoredPoint]:
        """Returns the points with the highest BM25 score for these words."""
        return await self._search(collection, _sparse(words), WORDS, limit, condition)

    async def check(self) -> None:
        """Raises `IndexUnavailable` if the server does not answer."""
        async with self._client_for("") as (client, _):
            await client.get_collections()

    async def close(self) -> None:
        """Closes the connection."""
        if self._client is not None:
            await self._client.close()

    async def _search(
        self,
        collection: str,
        query: list[float] | models.SparseVector,
        using: str,
        limit: int,
        condition: Condition | None,
    ) -> Sequence[ScoredPoint]:
        async with self._client_for(collection) as (client, name):
            answer = await client.query_points(
                name,
                query=query,
                using=using,
                limit=limit,
                query_filter=None if condition is None else filter_of(condition, _FILTERS),
                search_params=models.SearchParams(hnsw_ef=HNSW_EF),
                with_payload=False,
            )
        return [ScoredPoint(id=str(one.id), score=one.score) for one in answer.points]

    @asynccontextmanager
    async def _client_for(self, collection: str) -> AsyncIterator[tuple[AsyncQdrantClient, str]]:
        """Yields the client and the server's name of the collection; translates Qdrant's errors."""
        if self._client is None:
            self._client = self._connect()
        try:
            yield self._client, f"{self._prefix}{collection}"
        except UnexpectedResponse as error:
            if error.status_code == _MISSING:
                raise NoCollection(collection) from error
            raise IndexUnavailable(f"The Qdrant server answers {error.status_code}.") from error
        except ApiException as error:
            raise IndexUnavailable("The Qdrant server cannot be reached.") from error


async def _create_collection(client: AsyncQdrantClient, name: str, dimensions: int) -> None:
    vector = models.VectorParams(size=dimensions, distance=models.Distance.COSINE)
    words = models.SparseVectorParams(modifier=models.Modifier.IDF)
    try:
        await client.create_collection(
            name,
            vectors_config={VECTOR: vector},
            sparse_vectors_config={WORDS: words},
            hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
        )
    except UnexpectedResponse as error:
        if error.status_code != _EXISTS:  # another process has created it meanwhile
            raise


def _point(point: IndexPoint) -> models.PointStruct:
    return models.PointStruct(
        id=point.id,
        vector={VECTOR: list(point.vector), WORDS: _sparse(point.words)},
        payload=payload_of(point.document, point.attributes),
    )


def _sparse(words: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(words.indices), values=list(words.values))


def _document_filter(document: str) -> models.Filter:
    match = models.MatchValue(value=document)
    return models.Filter(must=[models.FieldCondition(key=DOCUMENT, match=match)])
