"""Answer of a language model to the audio of one window, as text of a transcript (pure)."""

import unicodedata
from collections.abc import Sequence

from msgspec import structs

from llm_backend.backends.transcription.instructions import ASR_TEXT
from llm_backend.engine.messages import TokenLogprob

_HEADER = "language "
_HEADER_CHARACTERS = 200  # longer text is not a header, which names a few languages


class WindowAnswer:
    """Removes the header `language NAME<asr_text>` from an answer while it arrives, if it
    `may_have_header`. `language` is the name in it, empty if there is none."""

    def __init__(self, *, may_have_header: bool) -> None:
        self._is_open = may_have_header
        self._pending = ""
        self._pending_logprobs: list[TokenLogprob] = []
        self.language = ""

    def feed(
        self, text: str, logprobs: Sequence[TokenLogprob]
    ) -> tuple[str, Sequence[TokenLogprob]]:
        """Returns the text, and its tokens, that are known to belong to the transcript. Tokens that
        come without text are returned with the next one."""
        self._pending += text
        self._pending_logprobs += logprobs
        if not self._is_open:
            return self.finish() if text else ("", ())
        header, mark, rest = self._pending.partition(ASR_TEXT)
        if mark:
            return self._end_header(header, rest)
        return ("", ()) if self._may_be_header() else self.finish()

    def finish(self) -> tuple[str, Sequence[TokenLogprob]]:
        """Returns the pending text and tokens, which belong to no header."""
        self._is_open = False
        pending, logprobs = self._pending, self._pending_logprobs
        self._pending, self._pending_logprobs = "", []
        return pending, logprobs

    def _end_header(self, header: str, rest: str) -> tuple[str, Sequence[TokenLogprob]]:
        self.language = header.strip().removeprefix(_HEADER).strip()
        header_bytes = len((header + ASR_TEXT).encode())
        _, logprobs = self.finish()
        return rest, _without_bytes(logprobs, header_bytes)

    def _may_be_header(self) -> bool:
        begin = self._pending.lstrip()[: len(_HEADER)]
        return _HEADER.startswith(begin) and len(self._pending) <= _HEADER_CHARACTERS


def _without_bytes(logprobs: Sequence[TokenLogprob], number: int) -> list[TokenLogprob]:
    """Returns the tokens after the first `number` bytes. A token that begins before and ends after
    them keeps its logprob, with the rest of its bytes."""
    kept: list[TokenLogprob] = []
    for token in logprobs:
        if number < len(token.bytes):
            kept.append(structs.replace(token, bytes=token.bytes[max(number, 0) :]))
        number -= len(token.bytes)
    return kept


def join_windows(before: str, text: str) -> str:
    """Returns a window's text with a space to separate it from the text before it, unless one of
    the scripts has no spaces between words."""
    text = text.lstrip()
    if not before or not text or before[-1].isspace():
        return text
    is_spaced = not any(unicodedata.east_asian_width(one) in "WF" for one in (before[-1], text[0]))
    return f" {text}" if is_spaced else text
