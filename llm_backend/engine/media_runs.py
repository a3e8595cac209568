"""Images and audio among the tokens of a text. Pure.

A projector turns a medium into runs of embeddings. Among the tokens of a text, each embedding of a
run is a placeholder token, a number below zero that is equal only for the same medium. So texts are
compared, and cached prefixes shared, by tokens alone. A run is cached as a whole or not at all,
because it may take fewer positions than it has embeddings.
"""

import hashlib
from collections import abc
from dataclasses import dataclass
from typing import Protocol

from llm_backend.engine.messages import MediaItem, MediaKind

_INDEX_BITS = 20  # bits of a placeholder token that count how many of its run follow it
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_DIGEST_BYTES = 16


class MediaError(Exception):
    """An image or audio cannot be read; the message gives the reason in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of a medium: `count` embeddings that take `positions`. `is_non_causal`: they attend
    to each other in both directions, so they are computed in one pass."""

    count: int
    positions: int
    is_non_causal: bool = False


Piece = list[int] | Part
"""A piece of a medium in a prompt: text tokens around and between the parts, or a part."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Part `part_index` of `media`, the request's medium `number`: tokens from index `start`."""

    media: MediaItem
    number: int
    part_index: int
    part: Part
    start: int

    @property
    def end(self) -> int:
        """The index after the run's last token."""
        return self.start + self.part.count


class Projector(Protocol):
    """Encodes images or audio into embeddings for a model."""

    @property
    def media(self) -> frozenset[MediaKind]:
        """The supported kinds of media."""

    def pieces(self, media: MediaItem) -> list[Piece]:
        """Returns the text and runs of a medium in a prompt, without encoding it. Raises
        `MediaError`."""


Identity = tuple[bytes, int, int]


def identity(media: MediaItem) -> Identity:
    """Identity of a medium: images of one colour have equal bytes in any shape, so the shape
    counts."""
    return media.digest, media.width, media.height


def placeholder_tokens(media: MediaItem, part_index: int, count: int) -> list[int]:
    """The placeholder tokens of one part of a medium."""
    source = f"{media.medium}:{media.width}:{media.height}:{part_index}:".encode() + media.digest
    key = hashlib.blake2b(source, digest_size=_DIGEST_BYTES).digest()
    base = int.from_bytes(key) + 1 << _INDEX_BITS
    return [-(base + following) for following in range(count - 1, -1, -1)]


def length_of_whole_runs(tokens: abc.Sequence[int], length: int) -> int:
    """Number of the first `length` tokens that can be cached: a run that would be cut is
    omitted."""
    while length and tokens[length - 1] < 0 and -tokens[length - 1] & _INDEX_MASK:
        length -= 1
    return length


def position_of(runs: abc.Sequence[Run], index: int) -> int:
    """The position of the token at `index`, which is outside all runs or the first token of one."""
    saved = sum(run.part.count - run.part.positions for run in runs if run.end <= index)
    return index - saved
