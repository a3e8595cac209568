"""Recognized tokens as segments of a transcript (pure)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llm_backend.engine.messages import TokenLogprob, TranscriptSegment
from llm_backend.engine.transcript_words import TimedToken, begins_word, timed_words

_BYTE = re.compile(r"<0x([0-9A-F]{1,2})>")
_ENDS = (".", "?", "!", "。", "？", "！")  # of sentences, also in scripts without spaces
_PAUSE_S = 1.0  # a pause that ends a segment
_LONGEST_S = 15.0  # a segment longer than this ends before the next word
_TOKEN_S = 0.3  # duration of a token, if the model reports none and no token follows sooner


@dataclass(frozen=True, kw_only=True)
class RecognizedToken:
    """A token, with its times in seconds since the window began. `text` is the library's, in which
    a word begins with a space and a byte is `<0xE4>`. `logprob` is None if the model reports
    none."""

    text: str
    number: int
    start_s: float
    end_s: float
    logprob: float | None

    @property
    def bytes(self) -> bytes:
        """The token's bytes."""
        named = _BYTE.fullmatch(self.text)
        return bytes([int(named[1], 16)]) if named else self.text.encode()


def end_times(
    starts: Sequence[float], durations: Sequence[float], length_s: float
) -> Sequence[float]:
    """Returns the ends of tokens: by their durations if the model reports these, else where the
    next token starts, at most 0.3 s later."""
    following = [*starts[1:], length_s]
    if len(durations) == len(starts):
        ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    else:
        ends = [min(start + _TOKEN_S, end) for start, end in zip(starts, following, strict=True)]
    return [min(max(start, end), length_s) for start, end in zip(starts, ends, strict=True)]


def build_segments(tokens: Sequence[RecognizedToken], *, words: bool) -> list[TranscriptSegment]:
    """Returns segments, each up to the end of a sentence, a pause of a second, or about 15 s."""
    return [_segment(piece, words=words) for piece in _pieces(tokens)]


def _pieces(tokens: Sequence[RecognizedToken]) -> Iterator[Sequence[RecognizedToken]]:
    piece: list[RecognizedToken] = []
    for token in tokens:
        if piece and begins_word(token.text) and _has_ended(piece, token):
            yield piece
            piece = []
        piece.append(token)
    if piece:
        yield piece


def _has_ended(piece: Sequence[RecognizedToken], following: RecognizedToken) -> bool:
    is_long = following.end_s - piece[0].start_s > _LONGEST_S
    has_pause = following.start_s - piece[-1].end_s >= _PAUSE_S
    return piece[-1].text.endswith(_ENDS) or has_pause or is_long


def _segment(piece: Sequence[RecognizedToken], *, words: bool) -> TranscriptSegment:
    timed = [TimedToken(bytes=one.bytes, start_s=one.start_s, end_s=one.end_s) for one in piece]
    return TranscriptSegment(
        start_s=piece[0].start_s,
        end_s=max(one.end_s for one in piece),
        text=b"".join(one.bytes for one in piece).decode(errors="replace"),
        tokens=[one.number for one in piece],
        logprobs=[
            TokenLogprob(token=one.number, bytes=one.bytes, logprob=one.logprob) for one in piece
        ],
        no_speech_probability=0.0,  # such a model reports none
        words=timed_words(timed, "") if words else [],
    )
