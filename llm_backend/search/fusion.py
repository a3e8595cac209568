"""Reciprocal rank fusion of two rankings (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.search.base import ScoredPoint

# Larger: the first ranks count less before the later ones. The usual value of the literature.
SMOOTHING = 60


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the two rankings."""

    embedding: float = 1.0
    text: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FusedPoint:
    """A point; `score` is 1 for the first of both rankings. `similarity` is the cosine, 0 at least,
    and None for a point that only the keyword ranking has."""

    id: str
    score: float
    similarity: float | None


def fuse(
    nearest: Sequence[ScoredPoint], keyword_hits: Sequence[ScoredPoint], weights: Weights
) -> list[FusedPoint]:
    """Fuses both rankings, best first; among equals, the more similar one first."""
    total_weight = weights.embedding + weights.text
    scores: dict[str, float] = {}
    for ranking, weight in ((nearest, weights.embedding), (keyword_hits, weights.text)):
        for rank, point in enumerate(ranking):
            share = weight / total_weight * (SMOOTHING + 1) / (SMOOTHING + 1 + rank)
            scores[point.id] = scores.get(point.id, 0.0) + share
    similarities = {point.id: min(1.0, max(0.0, point.score)) for point in nearest}
    ranked = [
        FusedPoint(id=id, score=min(1.0, score), similarity=similarities.get(id))
        for id, score in scores.items()
        if score > 0
    ]
    return sorted(ranked, key=lambda one: (-one.score, -(one.similarity or 0.0), one.id))
