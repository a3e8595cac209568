"""Embedding models of vector stores: local models, or a named model of an upstream."""

import struct
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol
from weakref import WeakKeyDictionary

from llm_backend.backends.base import Meter
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_handle import ModelHandle
from llm_backend.backends.registry import Registry
from llm_backend.engine.messages import ModelInfo, ModelKind
from llm_backend.errors import ContextLengthExceeded, EngineUnavailable, Unsupported
from llm_backend.extraction import Chunking, Format, split_into_chunks
from llm_backend.extras import missing_engine_hint

Vector = list[float]

SPARE_TOKENS = 8  # for the special tokens around an input: BOS and EOS, or [CLS] and [SEP]
TEXTS_PER_REQUEST = 16  # texts in one request, so that other requests get a turn


class EmbeddingSource(Protocol):
    """A model that computes embedding vectors."""

    @property
    def name(self) -> str: ...

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of tokens of each text."""

    async def vectors(self, texts: Sequence[str], meter: Meter | None) -> list[Vector]:
        """Returns a vector of norm 1 for each text; a text must fit into the model's input. Counts
        the input tokens."""


class LocalEmbeddingSource:
    """A local embedding model."""

    def __init__(self, model: LocalModel) -> None:
        self.name = model.card.id
        self._model = model

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of tokens of each text."""
        return await self._model.count_tokens(texts)

    async def vectors(self, texts: Sequence[str], meter: Meter | None) -> list[Vector]:
        """Returns a vector of norm 1 for each text. Counts the input tokens."""
        answer = await self._model.embed(texts)
        if meter is not None:
            meter.count_embedding(self.name, answer.prompt_tokens)
        numbers = struct.iter_unpack(f"<{answer.embedding_size}f", answer.vectors)
        return [list(row) for row in numbers]


class TextEmbedder:
    """Embedding model for texts of any length; `input_limit` in tokens."""

    def __init__(self, source: EmbeddingSource, input_limit: int) -> None:
        self.name = source.name
        self.input_limit = input_limit
        self._source = source

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Returns the number of tokens of each text."""
        return await self._source.count(texts)

    async def embed(self, texts: Sequence[str], meter: Meter | None) -> list[Vector]:
        """Returns a vector of norm 1 for each text; for a text over `input_limit`, the mean of
        the vectors of its parts. `meter` counts the input tokens; None if they are not charged."""
        parts: list[list[str]] = []
        for text, tokens in zip(texts, await self.count(texts), strict=True):
            parts.append([text] if tokens <= self.input_limit else await self._parts(text))
        vectors = await self._embed([part for some in parts for part in some], meter)
        rest = iter(vectors)
        return [_mean(list(islice(rest, len(some)))) for some in parts]

    async def _parts(self, text: str) -> list[str]:
        whole = Chunking(max_tokens=self.input_limit, overlap_tokens=0)
        chunks = await split_into_chunks(text, Format.TEXT, whole, self.count)
        return [chunk.text for chunk in chunks] or [" "]  # a text of blanks has no chunks

    async def _embed(self, texts: Sequence[str], meter: Meter | None) -> list[Vector]:
        vectors: list[Vector] = []
        for start in range(0, len(texts), TEXTS_PER_REQUEST):
            vectors += await self._source.vectors(texts[start : start + TEXTS_PER_REQUEST], meter)
        return vectors


class Embedders:
    """Embedding models for vector stores: `preferred` for new stores, else the first local one;
    `find_upstream` returns an upstream's model by name."""

    def __init__(
        self,
        registry: Registry,
        *,
        preferred: str | None,
        find_upstream: Callable[[str], TextEmbedder | None] = lambda name: None,
    ) -> None:
        self._registry = registry
        self._preferred = preferred
        self._find_upstream = find_upstream
        # A reload of the configuration that changes a model replaces its handle, but not its card.
        self._model_infos: WeakKeyDictionary[ModelHandle, ModelInfo] = WeakKeyDictionary()

    async def default_model(self) -> TextEmbedder:
        """Returns the model for new stores. Raises `Unsupported` if there is none."""
        if self._preferred is not None:
            return await self.get(self._preferred)
        failure: EngineUnavailable | None = None
        for model in self._registry.local:
            try:
                embedder = await self._embedder(model) if await model.may_embed() else None
            except EngineUnavailable as error:  # the model may be one for embeddings
                failure = error
                continue
            if embedder is not None:
                return embedder
        try:
            raise failure or Unsupported(
                "Vector stores need a model for embeddings, and this server has none: add a GGUF "
                f"file of one to `models`.{missing_engine_hint()}"
            )
        finally:
            del failure  # its traceback holds this frame: a reference cycle

    async def get(self, name: str) -> TextEmbedder:
        """Returns the model of this name. Raises `Unsupported` if it is no longer served."""
        for model in self._registry.local:
            if model.card.id == name:
                embedder = await self._embedder(model)
                if embedder is not None:
                    return embedder
        if (upstream_model := self._find_upstream(name)) is not None:
            return upstream_model
        raise Unsupported(
            f"The embedding model `{name}` is not among this server's models; add it to `models`."
            f"{missing_engine_hint()}"
        )

    async def _embedder(self, model: LocalModel) -> TextEmbedder | None:
        info = self._model_infos.get(model.handle)
        if info is None:  # `info` loads a model that is not in memory, so it is cached
            info = self._model_infos[model.handle] = await model.info()
        if info.kind is not ModelKind.EMBEDDING:
            return None
        tokens = min(info.context_tokens, model.batch_tokens)
        input_limit = tokens - SPARE_TOKENS
        if input_limit < 1:
            raise ContextLengthExceeded(
                f"`{model.card.id}` reads {tokens} tokens at once, and an input needs "
                f"{SPARE_TOKENS + 1}: load it with more `context_tokens` and `batch_tokens`."
            )
        return TextEmbedder(LocalEmbeddingSource(model), input_limit)


def _mean(vectors: Sequence[Vector]) -> Vector:
    if len(vectors) == 1:
        return vectors[0]
    summed = [sum(numbers) for numbers in zip(*vectors, strict=True)]
    length = sum(number * number for number in summed) ** 0.5 or 1.0
    return [number / length for number in summed]
