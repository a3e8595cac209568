"""Validation of a successful answer's beginning, before the answer is passed on."""

from collections.abc import Sequence

from llm_backend.backends.upstream.answer_kinds import AnswerKinds, AnswerValidator, invalid_answer
from llm_backend.backends.upstream.http.client import HttpAnswer


async def read_start(
    answer: HttpAnswer, expected: AnswerKinds, *, limit_bytes: int
) -> Sequence[bytes]:
    """Reads as much of an answer as its validation needs, and returns these pieces. Raises
    `UpstreamFailed` if it is not of an expected kind, and the HTTP client's errors."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not expected.is_validated:
        if kind == "text/html" and not expected.page:
            raise invalid_answer("a page")
        return ()
    is_empty = answer.headers.get("content-length") == "0"
    if expected.events and kind == "text/event-stream" and not is_empty:
        return ()  # at once, as an event may take long; an empty stream is noticed at its end
    coding = answer.headers.get("content-encoding", "identity").encode()
    validator = AnswerValidator(expected, coding=coding, limit_bytes=limit_bytes)
    if validator.passes:
        return ()
    content = answer.content
    while not content.at_eof() and (piece := await content.readany()):
        validator.feed(piece)
        if validator.passes:
            return validator.pieces
    validator.end()
    return validator.pieces
