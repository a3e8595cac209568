"""Points for the index's tests."""

import uuid

import numpy as np

from llm_backend.search import Attribute, IndexPoint, text_keywords

__all__ = ["DIMENSIONS", "axis", "point", "random_points"]

DIMENSIONS = 8


def axis(number: int) -> list[float]:
    """A vector along one axis."""
    return [float(place == number) for place in range(DIMENSIONS)]


def point(
    number: int, text: str = "", *, document: str = "d", **attributes: Attribute
) -> IndexPoint:
    """A point along an axis."""
    return IndexPoint(
        id=str(uuid.UUID(int=number)),
        document=document,
        vector=axis(number % DIMENSIONS),
        words=text_keywords(text),
        attributes=attributes,
    )


def random_points(number: int, *, dimensions: int = DIMENSIONS, begin: int = 0) -> list[IndexPoint]:
    """Points anywhere, without words."""
    vectors = np.random.default_rng(begin).normal(size=(number, dimensions))
    return [
        IndexPoint(
            id=str(uuid.UUID(int=begin + place)),
            document="d",
            vector=vector.tolist(),
            words=text_keywords(f"w{place}"),
        )
        for place, vector in enumerate(vectors)
    ]
