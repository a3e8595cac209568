"""Who makes vectors of texts: local models for embeddings, or an upstream's that is named."""

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

from llm_backend.access import count_embedding
from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import Registry
from llm_backend.engine.messages import ModelInfo, ModelKind
from llm_backend.errors import ContextLengthExceeded, EngineUnavailable, Unsupported
from llm_backend.extraction import Chunking, Format, chunks_of

__all__ = ["Embedders", "EmbeddingModel", "Source"]

Vector = list[float]

SPARE_TOKENS = 8  # for those that every input begins and ends with
AT_ONCE = 16  # texts in one request, so that others have their turn


class Source(Protocol):
    """A model that makes vectors."""

    @property
    def name(self) -> str: ...

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """How many tokens each text has."""

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """A vector of length 1 for each text, none of which is too long; what was read for them is
        counted for whoever they are made for."""


class LocalSource:
    """A model here."""

    def __init__(self, model: LocalModel) -> None:
        self.name = model.card.id
        self._model = model

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """How many tokens each text has."""
        return await self._model.count_tokens(texts)

    async def vectors(self, texts: Sequence[str]) -> list[Vector]:
        """A vector of length 1 for each text."""
        answer = await self._model.embed(texts)
        count_embedding(self.name, tokens=answer.prompt_tokens)
        numbers = struct.iter_unpack(f"<{answer.embedding_size}f", answer.vectors)
        return [list(row) for row in numbers]


class EmbeddingModel:
    """A model for embeddings. `room` is how many tokens of a text it reads at once."""

    def __init__(self, source: Source, room: int) -> None:
        self.name = source.name
        self.room = room
        self._source = source

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """How many tokens each text has."""
        return await self._source.count(texts)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector of length 1 for each text; for one that is longer than the model can read, the
        mean of its parts'."""
        parts: list[list[str]] = []
        for text, tokens in zip(texts, await self.count(texts), strict=True):
            parts.append([text] if tokens <= self.room else await self._parts(text))
        vectors = await self._embed([part for some in parts for part in some])
        means, begin = [], 0
        for some in parts:
            means.append(_mean(vectors[begin : begin + len(some)]))
            begin += len(some)
        return means

    async def _parts(self, text: str) -> list[str]:
        whole = Chunking(max_tokens=self.room, overlap_tokens=0)
        return [chunk.text for chunk in await chunks_of(text, Format.TEXT, whole, self.count)]

    async def _embed(self, texts: Sequence[str]) -> list[Vector]:
        vectors: list[Vector] = []
        for start in range(0, len(texts), AT_ONCE):
            vectors += await self._source.vectors(texts[start : start + AT_ONCE])
        return vectors


class Embedders:
    """The models that vector stores can use: `preferred` for new ones, else the first that is here;
    `elsewhere` gives an upstream's of a name."""

    def __init__(
        self,
        registry: Registry,
        *,
        preferred: str | None,
        elsewhere: Callable[[str], EmbeddingModel | None] = lambda name: None,
    ) -> None:
        self._registry = registry
        self._preferred = preferred
        self._elsewhere = elsewhere
        self._known: dict[ModelCard, ModelInfo] = {}

    async def for_new_stores(self) -> EmbeddingModel:
        """Raises `Unsupported` where there is none."""
        if self._preferred is not None:
            return await self.named(self._preferred)
        failure: EngineUnavailable | None = None
        for model in self._registry.local:
            try:
                embedder = await self._embedder(model) if await model.may_embed() else None
            except EngineUnavailable as error:  # it may have been the one
                failure = error
                continue
            if embedder is not None:
                return embedder
        raise failure or Unsupported(
            "Vector stores need a model for embeddings, and this server has none: add a GGUF file "
            "of one to `models`."
        )

    async def named(self, name: str) -> EmbeddingModel:
        """The model of this name. Raises `Unsupported` where it is not served any more."""
        for model in self._registry.local:
            if model.card.id == name:
                embedder = await self._embedder(model)
                if embedder is not None:
                    return embedder
        if (upstreams := self._elsewhere(name)) is not None:
            return upstreams
        raise Unsupported(
            f"The embedding model `{name}` is not among this server's models; add it to `models`."
        )

    async def _embedder(self, model: LocalModel) -> EmbeddingModel | None:
        info = self._known.get(model.card)
        if info is None:  # one that is not in memory is loaded, once
            info = self._known[model.card] = await model.info()
        if info.kind is not ModelKind.EMBEDDING:
            return None
        room = min(info.context_tokens, model.batch_tokens) - SPARE_TOKENS
        if room < 1:
            raise ContextLengthExceeded(f"`{model.card.id}` reads too few tokens at once.")
        return EmbeddingModel(LocalSource(model), room)


def _mean(vectors: Sequence[Vector]) -> Vector:
    if len(vectors) == 1:
        return vectors[0]
    summed = [sum(numbers) for numbers in zip(*vectors, strict=True)]
    length = sum(number * number for number in summed) ** 0.5 or 1.0
    return [number / length for number in summed]
