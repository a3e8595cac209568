"""Pictures and sounds among the tokens of a text. Pure.

A projector turns a medium into runs of embeddings. Among the tokens of a text a run is as many
stand-ins, numbers below zero that are the same where, and only where, the same medium was given: so
texts are compared, and their cells shared, as if there were nothing but tokens. A run is kept as a
whole or not at all: it may take fewer positions than it has embeddings.
"""

import hashlib
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from typing import Protocol

from llm_backend.engine.messages import Media, Medium

__all__ = [
    "Identity", "MediaError", "Part", "Piece", "Projector", "Run", "identity", "position_of",
    "stand_ins", "whole",
]  # fmt: skip

_PLACE_BITS = 20  # of a stand-in: how many of its run are still to come
_PLACE = (1 << _PLACE_BITS) - 1
_DIGEST_BYTES = 16


class MediaError(Exception):
    """A picture or a sound cannot be read; the message says why, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One run of a medium: `count` embeddings that take `positions`. `is_whole`: they see each
    other, and so are computed in one pass."""

    count: int
    positions: int
    is_whole: bool = False


Piece = list[int] | Part
"""What a projector makes of a medium: tokens of its own around, and between, the parts."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Part `place` of `media`, which is the request's medium `number`, as the tokens from `start`
    on."""

    media: Media
    number: int
    place: int
    part: Part
    start: int

    @property
    def end(self) -> int:
        """The place behind its last token."""
        return self.start + self.part.count


class Projector(Protocol):
    """What turns pictures or sounds into embeddings for a model."""

    @property
    def media(self) -> frozenset[Medium]:
        """What it can read."""

    def pieces(self, media: Media) -> list[Piece]:
        """What a medium is in a prompt, found out without computing it. Raises `MediaError`."""


Identity = tuple[bytes, int, int]


def identity(media: Media) -> Identity:
    """What tells a medium from all others: pictures of one colour have equal bytes in any shape."""
    return media.digest, media.width, media.height


def stand_ins(media: Media, place: int, count: int) -> list[int]:
    """The tokens that stand for part `place` of a medium."""
    told = f"{media.medium}:{media.width}:{media.height}:{place}:".encode() + media.digest
    key = hashlib.blake2b(told, digest_size=_DIGEST_BYTES).digest()
    base = int.from_bytes(key) + 1 << _PLACE_BITS
    return [-(base + left) for left in range(count - 1, -1, -1)]


def whole(tokens: Tokens[int], length: int) -> int:
    """How many of the first `length` tokens can be kept: a run that would be cut goes with them."""
    while length and tokens[length - 1] < 0 and -tokens[length - 1] & _PLACE:
        length -= 1
    return length


def position_of(runs: Tokens[Run], place: int) -> int:
    """The position of the token at a place that is in none of the runs, but maybe the first of
    one."""
    spared = sum(run.part.count - run.part.positions for run in runs if run.end <= place)
    return place - spared
