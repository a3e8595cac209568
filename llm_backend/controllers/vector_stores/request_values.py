"""Parses filters, chunking and ranking options of requests into internal types (pure)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from llm_backend.errors import InvalidRequest
from llm_backend.search import AllOf, AnyOf, Comparison, Condition, Weights
from llm_backend.store.vector_stores import Attribute, StoredChunking

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


AUTO_TOKENS = 800  # OpenAI's default; half of it overlaps
CONDITIONS_LIMIT = 100  # per filter: no reasonable one has more
DEPTH_LIMIT = 8
_ORDERED = ("gt", "gte", "lt", "lte")


def chunking_from(
    strategy: "api.ChunkingStrategyRequestParam | None", *, input_limit: int
) -> StoredChunking:
    """Parses a chunking strategy; `input_limit` is that of the embedding model in tokens."""
    if strategy is None or strategy["type"] == "auto":
        max_tokens = min(AUTO_TOKENS, input_limit)
        return StoredChunking(max_tokens=max_tokens, overlap_tokens=max_tokens // 2)
    sizes = strategy["static"]
    max_tokens, overlap = int(sizes["max_chunk_size_tokens"]), int(sizes["chunk_overlap_tokens"])
    if not 0 <= overlap <= max_tokens // 2:
        raise InvalidRequest(
            f"`chunk_overlap_tokens` is {overlap}; it must be 0 to {max_tokens // 2}, half of "
            "`max_chunk_size_tokens`.",
            param="chunking_strategy.static.chunk_overlap_tokens",
        )
    return StoredChunking(max_tokens=max_tokens, overlap_tokens=overlap)


def attributes_from(attributes: "api.VectorStoreFileAttributes") -> dict[str, Attribute]:
    """Returns a file's attributes, by default none."""
    return dict(attributes or {})


def expiry_from(expires_after: "api.VectorStoreExpirationAfter | None") -> int | None:
    """Parses `expires_after`: days without use until a store expires."""
    return None if expires_after is None else int(expires_after["days"])


def ranking_from(
    options: "api.RankingOptions | api.VectorStoreSearchRequestRankingOptions | None",
    where: str = "",
) -> tuple[Weights | None, float]:
    """Parses ranking options to the weights of both rankings (None for embeddings alone) and the
    minimum score."""
    options = options or {}
    threshold = float(options.get("score_threshold") or 0.0)
    if not 0 <= threshold <= 1:
        raise InvalidRequest(
            f"`score_threshold` is {threshold:g}; it must be 0 to 1.",
            param=f"{where}ranking_options.score_threshold",
        )
    if options.get("ranker") == "none":
        return None, threshold
    # The document has `hybrid_search` in tools only; a search of one store has the defaults.
    given = cast("api.HybridSearchOptions | None", options.get("hybrid_search"))
    weights = given or {"embedding_weight": 1.0, "text_weight": 1.0}
    embedding, text = float(weights["embedding_weight"]), float(weights["text_weight"])
    total = embedding + text
    if embedding < 0 or text < 0 or not 0 < total < math.inf:
        raise InvalidRequest(
            "The weights of `hybrid_search` must not be negative, at least one must be more than "
            "0, and their sum must be finite.",
            param=f"{where}ranking_options.hybrid_search",
        )
    return Weights(embedding=embedding, text=text), threshold


def condition_from(filters: "api.Filters | None", where: str = "filters") -> Condition | None:
    """Parses an attribute filter. Raises `InvalidRequest` for an invalid comparison."""
    if filters is None:
        return None
    return _ConditionParser(where).condition(filters, where, 0)


class _ConditionParser:
    """Parser of the filter in one `field` of a request. It limits the number of conditions."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._count = 0

    def condition(self, filters: "api.Filters", where: str, depth: int) -> Condition:
        self._count += 1
        if depth > DEPTH_LIMIT or self._count > CONDITIONS_LIMIT:
            raise InvalidRequest(
                f"A filter may have at most {CONDITIONS_LIMIT} conditions, nested at most "
                f"{DEPTH_LIMIT} deep.",
                param=self._field,
            )
        if filters["type"] != "and" and filters["type"] != "or":
            return _comparison(filters, where)
        parts = [
            self.condition(one, f"{where}.filters[{index}]", depth + 1)
            for index, one in enumerate(filters["filters"])
        ]
        return AllOf(conditions=parts) if filters["type"] == "and" else AnyOf(conditions=parts)


def _comparison(filters: "api.ComparisonFilter", where: str) -> Comparison:
    operator, value = filters["type"], filters["value"]
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if is_list != (operator in ("in", "nin")):
        expected = "a list of values" if operator in ("in", "nin") else "one value"
        raise InvalidRequest(f"`{operator}` compares with {expected}.", param=f"{where}.value")
    if operator in _ORDERED and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidRequest(
            f"`{operator}` compares numbers; `{where}.value` is not a number.",
            param=f"{where}.value",
        )
    return Comparison(key=filters["key"], operator=operator, value=value)
