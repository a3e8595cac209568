"""Incremental detokenization: whole characters only, cut before a stop string. Pure.

Bytes of an unfinished character are buffered, and so is text that may be the beginning of a stop
string; both are flushed at the end. Logprobs are released with the text of their token.
"""

import codecs
from collections import deque
from dataclasses import dataclass, field

from llm_backend.engine.messages import TokenLogprob


@dataclass(frozen=True, kw_only=True)
class ReleasedText:
    """Text that may be sent now; `stop` names the stop string that ended the text, if one did."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    stop: str | None = None


@dataclass(frozen=True, kw_only=True)
class _PendingLogprob:
    """A token's logprob, and the offsets in characters where the token begins and ends."""

    logprob: TokenLogprob
    start: int
    end: int


class TextStream:
    """The text of one generation. `push` takes each token's bytes, `finish` returns the rest."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = ""  # text not released yet
        self._released = 0  # characters released
        self._logprobs: deque[_PendingLogprob] = deque()
        self.is_stopped = False

    def push(
        self, piece: bytes, logprob: TokenLogprob | None = None, *, may_stop: bool = True
    ) -> ReleasedText:
        """Adds a token; returns the text that it releases. Without `may_stop`, its text is
        released and is not part of a stop string."""
        start = self._released + len(self._pending)
        self._pending += self._decoder.decode(piece)
        if logprob is None and not self._stops and not self._logprobs:  # the usual case
            return self._release_text(len(self._pending))
        if logprob is not None:
            unfinished = bool(self._decoder.getstate()[0])  # its character is incomplete
            end = self._released + len(self._pending) + unfinished
            self._logprobs.append(_PendingLogprob(logprob=logprob, start=start, end=end))
        if not may_stop:
            return self._release_text(len(self._pending))
        return self._release(len(self._pending) - self._possible_stop())

    def finish(self) -> ReleasedText:
        """Flush after the last token: bytes of an unfinished character become U+FFFD."""
        self._pending += self._decoder.decode(b"", final=True)
        return self._release(len(self._pending))

    def _release(self, length: int) -> ReleasedText:
        stop, cut = self._first_stop()
        if stop is not None:
            self.is_stopped = True
            released = ReleasedText(text=self._pending[:cut], logprobs=self._before(cut), stop=stop)
            self._pending = ""
            self._logprobs.clear()
            return released
        return self._release_text(length)

    def _release_text(self, length: int) -> ReleasedText:
        text = self._pending[:length]
        self._pending = self._pending[length:]
        self._released += length
        return ReleasedText(text=text, logprobs=self._complete())

    def _first_stop(self) -> tuple[str | None, int]:
        """The stop string that begins first in the pending text, the longest of several."""
        found = [(self._pending.find(stop), stop) for stop in self._stops]
        found = [(index, stop) for index, stop in found if index >= 0]
        if not found:
            return None, 0
        index, stop = min(found, key=lambda match: (match[0], -len(match[1])))
        return stop, index

    def _possible_stop(self) -> int:
        """Length of the longest suffix of the text that is a prefix of a stop string."""
        return max((overlap(self._pending, stop) for stop in self._stops), default=0)

    def _before(self, cut: int) -> list[TokenLogprob]:
        """Logprobs of tokens that begin before `cut` in the pending text."""
        return [
            pending.logprob for pending in self._logprobs if pending.start < self._released + cut
        ]

    def _complete(self) -> list[TokenLogprob]:
        """Logprobs of tokens whose text is released completely."""
        complete = []
        while self._logprobs and self._logprobs[0].end <= self._released:
            complete.append(self._logprobs.popleft().logprob)
        return complete


def overlap(text: str, stop: str) -> int:
    """Returns the length of the longest suffix of `text` that begins `stop` and is not all of
    it."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
