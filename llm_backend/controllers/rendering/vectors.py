"""Embedding vectors (rows of little-endian float32): as JSON numbers, and truncated dimensions.

Imported only where it is used, as numpy takes 12 MB and a tenth of a second.
"""

import asyncio

import numpy as np
import orjson
from numpy.typing import NDArray

# Numbers encoded in two milliseconds; then the event loop runs other tasks.
NUMBERS_PER_STEP = 1 << 16


async def as_numbers(vectors: bytes, size: int) -> list[orjson.Fragment]:
    """Returns each row as JSON, with the fewest digits that identify each float32."""
    rows = _rows(vectors, size)
    rows_per_step = max(1, NUMBERS_PER_STEP // size)
    fragments: list[orjson.Fragment] = []
    for start in range(0, len(rows), rows_per_step):
        fragments += [_json_fragment(row) for row in rows[start : start + rows_per_step]]
        await asyncio.sleep(0)
    return fragments


def shorten(vectors: bytes, size: int, dimensions: int) -> bytes:
    """Returns the first `dimensions` numbers of each row of `size`, normalized to length 1."""
    rows = _rows(vectors, size)[:, :dimensions]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).tobytes()


def _rows(vectors: bytes, size: int) -> NDArray[np.float32]:
    return np.frombuffer(vectors, "<f4").reshape(-1, size)


def _json_fragment(row: NDArray[np.float32]) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
