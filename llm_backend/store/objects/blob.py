"""References to blobs, as values that rows contain."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

from llm_backend.json_types import JsonObject


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Reference to bytes in numbered blocks of one size, `KEY/0`, `KEY/1`, ...; the last has the
    rest."""

    key: str
    size_bytes: int
    block_bytes: int


Content: TypeAlias = tuple[Blob, ...]
"""Content of a file: the bytes of its blobs, one after the other."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A range of bytes of one block."""

    name: str
    start: int
    length: int


def size_of(content: Iterable[Blob]) -> int:
    """Bytes of the content."""
    return sum(blob.size_bytes for blob in content)


def slices(content: Iterable[Blob], start: int, end: int) -> Iterator[Slice]:
    """The slices of blocks that contain the bytes from `start` until before `end`."""
    for blob in content:
        if start < blob.size_bytes and end > 0:
            yield from _slices(blob, max(start, 0), min(end, blob.size_bytes))
        start, end = start - blob.size_bytes, end - blob.size_bytes


def _slices(blob: Blob, start: int, end: int) -> Iterator[Slice]:
    while start < end:
        number, offset = divmod(start, blob.block_bytes)
        length = min(blob.block_bytes - offset, end - start)
        yield Slice(name=f"{blob.key}/{number}", start=offset, length=length)
        start += length


def to_json(content: Iterable[Blob]) -> list[JsonObject]:
    """The JSON form for a row."""
    return [asdict(blob) for blob in content]


def from_json(rows: Sequence[JsonObject]) -> Content:
    """The content of the JSON form of a row."""
    return tuple(Blob(**row) for row in rows)
