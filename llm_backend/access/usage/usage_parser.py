"""Parses the usage that an upstream reports at the end of its answer, or at its start (pure)."""

import re
from collections import deque
from collections.abc import Callable, Sequence
from json import JSONDecoder

from llm_backend.backends.upstream.content_coding import decode_with
from llm_backend.json_types import JsonMapping
from llm_backend.store.administration import Tokens

PIECES = 8  # last chunks of an answer that may contain its end
END_BYTES = 64 * 1024  # the end of an answer, in which usage is reported
# JSON text escapes quotation marks inside strings, so that no string can match this.
_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
# Text of an answer other than a stream, by the names of its fields.
_TEXTS = re.compile(
    rb'"(?:content|reasoning_content|refusal|arguments|text|value)": ?"([^"\\]*(?:\\.[^"\\]*)*)"'
)
_DECODER = JSONDecoder()
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_TOKENS_END = 1 << 53  # the largest integer that all JSON readers agree on


class UsageTail:
    """Keeps the end of a passing answer without copying it, and its first piece: some servers
    write the usage before long data. With `text_pattern`, also measures the text of a stream, of
    which only the end reports the whole usage."""

    def __init__(
        self, coding: bytes | None = None, text_pattern: re.Pattern[bytes] | None = None
    ) -> None:
        self._pieces: deque[bytes] = deque(maxlen=PIECES)
        self._first: list[bytes] = []  # the first piece
        self._text_counter = None if text_pattern is None else _TextCounter(text_pattern)
        take = (
            _keep_first(self._pieces, self._first)
            if self._text_counter is None
            else _fan_out(self._pieces, self._text_counter)
        )
        self.feed: Callable[[bytes], None] = decode_with(take, coding) or _ignore_chunk

    def usage(self) -> Tokens | None:
        """Returns the reported usage; None if there is no report."""
        return parse_usage(b"".join(self._pieces)[-END_BYTES:]) or parse_usage(
            b"".join(self._first)
        )

    def text_bytes(self) -> int:
        """Returns the bytes of text in a stream; for other answers, in their end."""
        if self._text_counter is not None:
            return self._text_counter.total_bytes()
        return _bytes_of(_TEXTS, b"".join(self._pieces)[-END_BYTES:])


class _TextCounter:
    """Adds up the text in a stream's lines. It scans in large steps and as late as possible:
    most streams are short or report their usage."""

    def __init__(self, text_pattern: re.Pattern[bytes]) -> None:
        self._text_pattern = text_pattern
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._text_bytes = 0

    def feed(self, piece: bytes) -> None:
        self._pending.append(piece)
        self._pending_bytes += len(piece)
        if self._pending_bytes >= END_BYTES:
            self._count_pending()

    def total_bytes(self) -> int:
        self._count_pending()
        return self._text_bytes

    def _count_pending(self) -> None:
        data = b"".join(self._pending)
        end = data.rfind(b"\n") + 1
        self._text_bytes += _bytes_of(self._text_pattern, data[:end])
        # An unfinished line is kept; one longer than `END_BYTES` holds no text.
        line = data[end:]
        self._pending = [line] if line and len(line) < END_BYTES else []
        self._pending_bytes = len(self._pending[0]) if self._pending else 0


def _keep_first(pieces: deque[bytes], first: list[bytes]) -> Callable[[bytes], None]:
    def feed(piece: bytes) -> None:
        if not first:
            first.append(piece[:END_BYTES])
        pieces.append(piece)

    return feed


def _fan_out(pieces: deque[bytes], counter: _TextCounter) -> Callable[[bytes], None]:
    def feed(piece: bytes) -> None:
        pieces.append(piece)
        counter.feed(piece)

    return feed


def _bytes_of(text_pattern: re.Pattern[bytes], data: bytes) -> int:
    return sum(map(len, text_pattern.findall(data)))


def _ignore_chunk(_piece: bytes) -> None:
    """Ignores chunks of an unsupported content coding."""


def parse_usage(end: bytes) -> Tokens | None:
    """Parses the last usage object in the end of a JSON body or of an event stream."""
    ends = [found.end() for found in _USAGE.finditer(end)]
    if not ends:
        return None
    text = end[ends[-1] :].decode("utf-8", "replace")
    try:
        usage, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):  # broken, a number too long, or nested too deeply
        return None
    return read_usage(usage)


def read_usage(usage: JsonMapping) -> Tokens | None:
    """Reads a usage object of a chat, a response or a realtime session; None if it has no token
    counts."""
    input_tokens = _count(usage, "prompt_tokens", "input_tokens")
    if input_tokens is None:
        return None
    input_details = _part(usage, _INPUT_DETAILS)
    output_details = _part(usage, _OUTPUT_DETAILS)
    tokens = Tokens(
        input_tokens=input_tokens,
        cached_tokens=_count(input_details, "cached_tokens") or 0,
        output_tokens=_count(usage, "completion_tokens", "output_tokens") or 0,
    )
    if _reports_media(input_details, output_details):
        tokens = _with_media(tokens, input_details, output_details)
    return tokens.normalize()


def _reports_media(input_details: JsonMapping, output_details: JsonMapping) -> bool:
    """True if the details report media tokens; rare, and checked for each answer."""
    return bool(
        input_details.get("audio_tokens")
        or input_details.get("image_tokens")
        or output_details.get("audio_tokens")
        or output_details.get("image_tokens")
    )


def _with_media(tokens: Tokens, input_details: JsonMapping, output_details: JsonMapping) -> Tokens:
    cached = _part(input_details, ("cached_tokens_details",))
    return tokens._replace(
        input_image_tokens=_count(input_details, "image_tokens") or 0,
        input_audio_tokens=_count(input_details, "audio_tokens") or 0,
        cached_image_tokens=_count(cached, "image_tokens") or 0,
        cached_audio_tokens=_count(cached, "audio_tokens") or 0,
        output_image_tokens=_count(output_details, "image_tokens") or 0,
        output_audio_tokens=_count(output_details, "audio_tokens") or 0,
    )


def _part(values: JsonMapping, names: Sequence[str]) -> JsonMapping:
    """Returns the first non-empty value of these names, if it is an object."""
    for name in names:
        if part := values.get(name):
            return part if isinstance(part, dict) else {}
    return {}


def _count(values: JsonMapping, *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOKENS_END:
            return value
    return None
