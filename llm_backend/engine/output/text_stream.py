"""Incremental detokenization: whole characters only, cut before a stop string. Pure.

Bytes of an unfinished character are held back, and so is text that may be the beginning of a stop
string; both are flushed at the end. Logprobs are released with the text of their token.
"""

import codecs
from collections import deque
from dataclasses import dataclass, field

from llm_backend.engine.messages import TokenLogprob

__all__ = ["ReleasedText", "TextStream"]


@dataclass(frozen=True, kw_only=True)
class ReleasedText:
    """Text that may be sent now; `stop` names the stop string that ended the text, if one did."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    stop: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A token's logprob, and the offsets in characters where the token begins and ends."""

    logprob: TokenLogprob
    start: int
    end: int


class TextStream:
    """The text of one generation. `push` takes each token's bytes, `finish` returns the rest."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""  # text not released yet
        self._shown = 0  # characters released
        self._logprobs: deque[_Held] = deque()
        self.is_stopped = False

    def push(
        self, piece: bytes, logprob: TokenLogprob | None = None, *, may_stop: bool = True
    ) -> ReleasedText:
        """Add a token; returns the text that it releases. Without `may_stop`, its text is
        released and is no part of a stop string."""
        start = self._shown + len(self._held)
        self._held += self._decoder.decode(piece)
        if logprob is None and not self._stops and not self._logprobs:  # as most requests are
            return self._show(len(self._held))
        if logprob is not None:
            unfinished = bool(self._decoder.getstate()[0])  # its character is incomplete
            end = self._shown + len(self._held) + unfinished
            self._logprobs.append(_Held(logprob=logprob, start=start, end=end))
        if not may_stop:
            return self._show(len(self._held))
        return self._release(len(self._held) - self._possible_stop())

    def finish(self) -> ReleasedText:
        """Flush after the last token: bytes of an unfinished character become U+FFFD."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(len(self._held))

    def _release(self, length: int) -> ReleasedText:
        stop, cut = self._first_stop()
        if stop is not None:
            self.is_stopped = True
            released = ReleasedText(text=self._held[:cut], logprobs=self._before(cut), stop=stop)
            self._held = ""
            self._logprobs.clear()
            return released
        return self._show(length)

    def _show(self, length: int) -> ReleasedText:
        text = self._held[:length]
        self._held = self._held[length:]
        self._shown += length
        return ReleasedText(text=text, logprobs=self._complete())

    def _first_stop(self) -> tuple[str | None, int]:
        """The stop string that begins first in the held text, the longest of several."""
        found = [(self._held.find(stop), stop) for stop in self._stops]
        found = [(place, stop) for place, stop in found if place >= 0]
        if not found:
            return None, 0
        place, stop = min(found, key=lambda match: (match[0], -len(match[1])))
        return stop, place

    def _possible_stop(self) -> int:
        """Length of the longest suffix of the text that is a prefix of a stop string."""
        return max((_overlap(self._held, stop) for stop in self._stops), default=0)

    def _before(self, cut: int) -> list[TokenLogprob]:
        """Logprobs of tokens that begin before `cut` in the held text."""
        return [held.logprob for held in self._logprobs if held.start < self._shown + cut]

    def _complete(self) -> list[TokenLogprob]:
        """Logprobs of tokens whose text is released completely."""
        complete = []
        while self._logprobs and self._logprobs[0].end <= self._shown:
            complete.append(self._logprobs.popleft().logprob)
        return complete


def _overlap(text: str, stop: str) -> int:
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
