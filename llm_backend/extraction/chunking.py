"""Chunking of text by tokens (pure, except for counting the tokens).

The text is cut into *segments*: lines, and parts of long lines. Each segment has a rank (`Break`)
as the beginning of a chunk. A chunk takes as many segments as fit, and ends before the best break
in its second half. The next chunk repeats its last segments, as far as the overlap allows.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import accumulate

from llm_backend.extraction.formats import Format

CountTokens = Callable[[Sequence[str]], Awaitable[Sequence[int]]]
"""Returns the number of tokens of each text."""

_SEGMENT_CHARACTERS = 240  # two or three sentences
_COUNT_BATCH = 1000  # segments
_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
# Possessive: the end of a sentence matches as a whole and only at its start, so that a line of dots
# is scanned once, instead of again from every dot.
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]++[\"')\]»”’]*+\s+|[。！？]+\s*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """Size and overlap of chunks, in tokens."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, kw_only=True)
class TextChunk:
    """A chunk of a text. Its first `repeated` characters are in the previous chunk, too: without
    them, all chunks joined are the text."""

    text: str
    repeated: int
    tokens: int


class Break(IntEnum):
    """Rank of a position as the beginning of a chunk."""

    ANYWHERE = 0
    SENTENCE = 1
    LINE = 2
    PARAGRAPH = 3
    HEADING = 4


@dataclass(frozen=True, kw_only=True)
class _Segment:
    text: str
    rank: Break
    tokens: int = 0


async def split_into_chunks(
    text: str, format: Format, chunking: Chunking, count: CountTokens
) -> list[TextChunk]:
    """Cuts a non-blank text into chunks. Chunks of a table begin with its head line."""
    uncounted = await asyncio.to_thread(lambda: list(_segments(text, format)))  # up to a million
    segments = await _count_tokens(uncounted, chunking.max_tokens, count)
    head, body = _split_head(segments) if format is Format.TABLE else (None, segments)
    if head is None or head.tokens > chunking.max_tokens // 2 or not _has_text(body):
        return await asyncio.to_thread(_join_segments, segments, chunking)
    body_chunking = Chunking(
        max_tokens=chunking.max_tokens - head.tokens,
        overlap_tokens=min(chunking.overlap_tokens, (chunking.max_tokens - head.tokens) // 2),
    )
    chunks = await asyncio.to_thread(_join_segments, body, body_chunking)
    return [_prepend_head(head, chunk, is_first=not index) for index, chunk in enumerate(chunks)]


def _split_head(segments: Sequence[_Segment]) -> tuple[_Segment, Sequence[_Segment]]:
    """Joins the segments of the first line, and returns the others beside it."""
    lines = (index for index, one in enumerate(segments) if index and one.rank >= Break.LINE)
    end = next(lines, len(segments))
    text = "".join(one.text for one in segments[:end])
    tokens = sum(one.tokens for one in segments[:end])
    return _Segment(text=text, rank=segments[0].rank, tokens=tokens), segments[end:]


def _has_text(segments: Sequence[_Segment]) -> bool:
    return any(segment.text.strip() for segment in segments)


def _prepend_head(head: _Segment, chunk: TextChunk, *, is_first: bool) -> TextChunk:
    return TextChunk(
        text=head.text + chunk.text,
        repeated=0 if is_first else len(head.text) + chunk.repeated,
        tokens=head.tokens + chunk.tokens,
    )


def _segments(text: str, format: Format) -> Iterator[_Segment]:
    is_markdown, is_fenced, is_after_blank = format is Format.MARKDOWN, False, True
    for line in text.splitlines(keepends=True):
        rank = Break.PARAGRAPH if is_after_blank else Break.LINE
        if is_fenced:
            rank = Break.LINE
        elif is_markdown and _HEADING.match(line):
            rank = Break.HEADING
        if is_markdown and _FENCE.match(line):
            is_fenced = not is_fenced
        is_after_blank = not line.strip()
        if len(line) <= _SEGMENT_CHARACTERS:
            yield _Segment(text=line, rank=rank)
        else:
            yield from _split_line(line, rank)


def _split_line(line: str, rank: Break) -> Iterator[_Segment]:
    """Splits a long line into sentences, and long sentences into groups of words."""
    ends = [match.end() for match in _SENTENCE_END.finditer(line)]
    begin = 0
    for end in [*(end for end in ends if end < len(line)), len(line)]:
        while end - begin > _SEGMENT_CHARACTERS:
            cut = _word_end(line, begin)
            yield _Segment(text=line[begin:cut], rank=rank)
            begin, rank = cut, Break.ANYWHERE
        if end > begin:
            yield _Segment(text=line[begin:end], rank=rank)
        begin, rank = end, Break.SENTENCE


def _word_end(line: str, begin: int) -> int:
    latest = begin + _SEGMENT_CHARACTERS
    spaces = [match.end() for match in _SPACE.finditer(line, begin, latest)]
    return spaces[-1] if spaces and spaces[-1] > begin else latest


async def _count_tokens(
    segments: list[_Segment], max_tokens: int, count: CountTokens
) -> list[_Segment]:
    """Counts the tokens of the segments; those over a quarter of a chunk are halved."""
    counted: list[_Segment] = []
    for start in range(0, len(segments), _COUNT_BATCH):
        batch = segments[start : start + _COUNT_BATCH]
        tokens = await count([segment.text for segment in batch])
        for segment, number in zip(batch, tokens, strict=True):
            if number > max_tokens // 4 and len(segment.text) > 1:
                counted += await _count_tokens(_halves(segment), max_tokens, count)
            else:  # a blank segment has no tokens, and counts as one
                counted.append(replace(segment, tokens=max(1, number)))
    return counted


def _halves(segment: _Segment) -> list[_Segment]:
    middle = len(segment.text) // 2
    space = _SPACE.search(segment.text, middle)
    cut = space.end() if space and space.end() < len(segment.text) else middle
    return [
        _Segment(text=segment.text[:cut], rank=segment.rank),
        _Segment(text=segment.text[cut:], rank=Break.ANYWHERE),
    ]


def _join_segments(segments: Sequence[_Segment], chunking: Chunking) -> list[TextChunk]:
    before = [0, *accumulate(segment.tokens for segment in segments)]  # tokens before each segment
    chunks: list[TextChunk] = []
    begin = emitted = 0  # first segment of the chunk; end of the segments in earlier chunks
    lead = ""  # blank lines before the first chunk
    while emitted < len(segments):
        end = _chunk_end(segments, before, begin, emitted, chunking.max_tokens)
        text = "".join(segment.text for segment in segments[begin:end])
        repeated = sum(len(segment.text) for segment in segments[begin:emitted])
        if text.strip():
            tokens = before[end] - before[begin]
            chunks.append(TextChunk(text=lead + text, repeated=repeated, tokens=tokens))
            lead = ""
        elif not chunks:
            lead += text[repeated:]
        else:  # blank lines make no chunk of their own
            chunks[-1] = replace(chunks[-1], text=chunks[-1].text + text[repeated:])
        emitted = end
        begin = _next_start(before, begin, end, chunking.overlap_tokens)
    return chunks


def _chunk_end(
    segments: Sequence[_Segment], before: Sequence[int], begin: int, emitted: int, max_tokens: int
) -> int:
    """Returns the end of a chunk, after `emitted`: the last of the best breaks in its second
    half."""
    furthest = emitted + 1
    while furthest < len(segments) and before[furthest + 1] - before[begin] <= max_tokens:
        furthest += 1
    if furthest == len(segments):
        return furthest
    middle = before[begin] + max_tokens // 2
    ends = range(furthest, emitted, -1)
    return max(
        (end for end in ends if before[end] >= middle or end == furthest),
        key=lambda end: segments[end].rank,
    )


def _next_start(before: Sequence[int], begin: int, end: int, overlap_tokens: int) -> int:
    """Returns the first segment of the next chunk, which is after the first one of this chunk."""
    start = end
    while start - 1 > begin and before[end] - before[start - 1] <= overlap_tokens:
        start -= 1
    return start
