"""Streaming JSONL parser and validator for batch input files.

Pure. Each line is an object of `custom_id`, `method`, `url` and `body`; the body is validated by
the operation when the line is run.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from llm_backend import exact_json
from llm_backend.contract.body import BodyLimits, check_bounds
from llm_backend.errors import TooLarge
from llm_backend.json_types import JsonMapping
from llm_backend.store import Lines
from llm_backend.store.text_checks import is_text

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

CHUNK_LINES = 64  # lines of one job: few enough to spread over workers, many enough to be cheap
MAX_ERRORS = 100  # if a file is not JSONL, every line is invalid
INPUT_MISSING: JsonMapping = {
    "code": "input_file_missing",
    "message": "The bytes of the input file are missing on this server: send the file again.",
    "param": None,
    "line": None,
}
"""The error of a batch whose input the object store lacks."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class RawLine:
    """A non-empty line: the bytes from `start` to before `end`; `text` is None if it is too
    long."""

    number: int  # from 1
    start: int
    end: int
    text: bytes | None


@dataclass(frozen=True, kw_only=True)
class InputLine:
    """One request of a batch."""

    custom_id: str
    body: JsonMapping


class LineProblem(Exception):
    """Raised for an invalid line."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class LineSplitter:
    """Splits a byte stream into non-empty lines; buffers one line of up to `limit_bytes`."""

    def __init__(self, limit_bytes: int, *, start: int = 0, first_line: int = 1) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._is_too_long = False
        self._number = first_line
        self._start = start
        self._end = start

    def feed(self, piece: bytes) -> Iterator[RawLine]:
        """Yields the lines that end in this piece."""
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._take(part)
            yield from self._end_line(break_bytes=1)
        self._take(rest)

    def finish(self) -> Iterator[RawLine]:
        """Yields the last line, if no line break ends it."""
        yield from self._end_line(break_bytes=0)

    def _take(self, part: bytes) -> None:
        self._end += len(part)
        if len(self._buffer) + len(part) > self._limit_bytes:
            self._is_too_long = True
            self._buffer.clear()
        elif not self._is_too_long:
            self._buffer += part

    def _end_line(self, *, break_bytes: int) -> Iterator[RawLine]:
        text = bytes(self._buffer)
        if self._start == 0:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if self._is_too_long or text.strip():
            line_text = None if self._is_too_long else text
            yield RawLine(number=self._number, start=self._start, end=self._end, text=line_text)
        self._buffer.clear()
        self._is_too_long = False
        self._number += 1
        self._end += break_bytes
        self._start = self._end


def read_line(text: bytes, endpoint: str, limits: BodyLimits) -> InputLine:
    """Parses a line into a request. Raises `LineProblem`."""
    try:
        check_bounds(text, limits)
    except TooLarge as error:
        raise LineProblem("line_too_long", error.message) from None
    try:
        line = exact_json.loads(text)
    except orjson.JSONDecodeError:
        raise LineProblem("invalid_json_line", "This line is not valid JSON.") from None
    if not isinstance(line, dict):
        raise LineProblem("invalid_json_line", "This line must be a JSON object.")
    for field in ("custom_id", "method", "url", "body"):
        if field not in line:
            message = f"This line has no '{field}', which is required."
            raise LineProblem("missing_required_parameter", message, field)
    if not isinstance(line["custom_id"], str) or not line["custom_id"]:
        raise LineProblem(
            "invalid_custom_id", "'custom_id' must be a text that is not empty.", "custom_id"
        )
    if line["method"] != "POST":
        raise LineProblem("invalid_method", "'method' must be POST.", "method")
    if line["url"] != endpoint:
        message = f"'url' must be {endpoint}, which this batch is for."
        raise LineProblem("url_mismatch", message, "url")
    if not isinstance(line["body"], dict):
        raise LineProblem("invalid_body", "'body' must be a JSON object.", "body")
    return InputLine(custom_id=line["custom_id"], body=line["body"])


class InputCheck:
    """Validates a whole input: counts lines, collects errors and splits it into chunks for jobs.

    Once `is_hopeless`, the batch fails whatever follows, and the rest need not be read.
    """

    def __init__(
        self, endpoint: str, *, lines_limit: int, line_limit_bytes: int, body_limits: BodyLimits
    ) -> None:
        self.errors: list[api.BatchError] = []
        self.chunks: list[Lines] = []
        self.total = 0
        self._endpoint = endpoint
        self._lines_limit = lines_limit
        self._line_limit_bytes = line_limit_bytes
        self._body_limits = body_limits
        self._splitter = LineSplitter(line_limit_bytes)
        self._models: set[str | None] = set()
        self._custom_id_digests: set[bytes] = set()
        self._chunk: list[RawLine] = []  # only numbers and offsets

    @property
    def is_hopeless(self) -> bool:
        """True if there are too many errors or lines."""
        return len(self.errors) >= MAX_ERRORS or self.total > self._lines_limit

    @property
    def model(self) -> str | None:
        """Model of all lines; None if they do not name the same one, or if no column can hold its
        name."""
        return next(iter(self._models)) if len(self._models) == 1 else None

    def feed(self, piece: bytes) -> None:
        """Validates the lines that end in this piece."""
        for line in self._splitter.feed(piece):
            self._check(line)

    def finish(self) -> None:
        """Validates the last line, at the end of the input."""
        for line in self._splitter.finish():
            self._check(line)
        self._close_chunk()
        if not self.total:
            self._add_error("empty_file", "The input file holds no line.")

    def _check(self, line: RawLine) -> None:
        if self.is_hopeless:
            return
        self.total += 1
        if self.total > self._lines_limit:
            message = f"A batch may have at most {self._lines_limit} lines on this server."
            self._add_error("too_many_tasks", message)
            return
        try:
            self._add_line(line)
        except LineProblem as problem:
            self._add_error(problem.code, problem.message, problem.param, line.number)

    def _add_line(self, line: RawLine) -> None:
        if line.text is None:
            limit = self._line_limit_bytes
            message = f"This line is longer than this server's limit of {limit} bytes."
            raise LineProblem("line_too_long", message)
        read = read_line(line.text, self._endpoint, self._body_limits)
        digest = hashlib.blake2b(read.custom_id.encode(), digest_size=16).digest()
        if digest in self._custom_id_digests:
            message = "An earlier line has the same 'custom_id'; each must have one of its own."
            raise LineProblem("duplicate_custom_id", message, "custom_id")
        self._custom_id_digests.add(digest)
        if len(self._models) < 2:
            model = read.body.get("model")
            self._models.add(model if isinstance(model, str) and is_text(model) else None)
        self._chunk.append(replace(line, text=None))
        if len(self._chunk) == CHUNK_LINES:
            self._close_chunk()

    def _close_chunk(self) -> None:
        if self._chunk:
            first, last = self._chunk[0], self._chunk[-1]
            self.chunks.append(
                Lines(
                    start=first.start,
                    end=last.end,
                    first_line=first.number,
                    last_line=last.number,
                )
            )
            self._chunk = []

    def _add_error(
        self, code: str, message: str, param: str | None = None, line: int | None = None
    ) -> None:
        self.errors.append({"code": code, "message": message, "param": param, "line": line})
