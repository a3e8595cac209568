"""Placeholders (marks) of images and audio while a template renders the messages.

To a template a mark is text, so it is copied to its position in the prompt. The projector adds the
text that a model needs around an image. A mark contains a random nonce, so that no message can
forge one.
"""

import re
import secrets
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter
from typing import TypeGuard

from llm_backend.backends.base import Message
from llm_backend.backends.local.media.values import Content, MediaPart
from llm_backend.errors import InvalidRequest

_NONCHARACTER = "\ufdd1"  # which Unicode excludes from text interchange


@dataclass(frozen=True, kw_only=True)
class UnmarkedPrompt:
    """Prompt without marks. `cuts` are positions that no token may span; `media` are images and
    audio with their positions."""

    text: str
    cuts: Sequence[int]
    media: Sequence[tuple[int, MediaPart]] = ()


class Marks:
    """Marks of one chat; `messages` are its messages with marks instead of media."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._media: list[MediaPart] = []
        self._nonce = ""
        has_media = any(_has_media(message.get("content")) for message in messages)
        if has_media:
            self._nonce = secrets.token_hex(16)
        self.messages = (
            [self._with_marks(message) for message in messages] if has_media else messages
        )

    def remove_from(self, text: str, cuts: Sequence[int]) -> UnmarkedPrompt:
        """Removes the marks from a rendered prompt. Raises `InvalidRequest` if the template omits
        or repeats one."""
        if not self._media:
            return UnmarkedPrompt(text=text, cuts=cuts)
        spans = [
            (found.start(), found.end(), int(found[1]))
            for found in re.finditer(f"{_NONCHARACTER}{self._nonce}:([0-9]+){_NONCHARACTER}", text)
        ]
        self._check([number for *_, number in spans])
        pieces, ends = [], [0, *(end for _, end, _ in spans)]
        for before, start in zip(ends, [*(start for start, *_ in spans), len(text)], strict=True):
            pieces.append(text[before:start])
        positions = [*accumulate(map(len, pieces[:-1]))]
        return UnmarkedPrompt(
            text="".join(pieces),
            cuts=[_shift_position(cut, spans, positions) for cut in cuts],
            media=[
                (position, self._media[number])
                for position, (*_, number) in zip(positions, spans, strict=True)
            ],
        )

    def _with_marks(self, message: Message) -> Message:
        content = message.get("content")
        if content is None or isinstance(content, str):
            return message
        text, was_text = "", False
        for piece in content:
            is_text = isinstance(piece, str)
            text += "\n" if is_text and was_text else ""
            text += piece if is_text else self._mark(piece)
            was_text = is_text
        return {**message, "content": text}

    def _mark(self, file: MediaPart) -> str:
        self._media.append(file)
        return f"{_NONCHARACTER}{self._nonce}:{len(self._media) - 1}{_NONCHARACTER}"

    def _check(self, found: Sequence[int]) -> None:
        times = Counter(found)
        for number, file in enumerate(self._media):
            if times[number] != 1:
                raise InvalidRequest(
                    f"The model's chat template leaves out or repeats this {file.medium}.",
                    param=file.param,
                )


def media_in(contents: Iterable[Content]) -> Iterator[MediaPart]:
    """Yields the images and audio of contents, in their order."""
    for content in contents:
        if _has_media(content):
            yield from (piece for piece in content if not isinstance(piece, str))


def _has_media(content: Content) -> TypeGuard[Sequence[str | MediaPart]]:
    return content is not None and not isinstance(content, str)


def _shift_position(
    cut: int, spans: Sequence[tuple[int, int, int]], positions: Sequence[int]
) -> int:
    """Returns a position after the removal of the marks before it; `positions` are those of the
    marks, already after the removal."""
    index = bisect_left(spans, cut, key=itemgetter(0)) - 1
    if index < 0:
        return cut
    return positions[index] + max(0, cut - spans[index][1])
