"""Validation of a successful answer's beginning, before the answer is passed on."""

from collections.abc import Sequence

import aiohttp

from llm_backend.backends.upstream.answer_kinds import Due, Held, no_answer

__all__ = ["held"]


async def held(answer: aiohttp.ClientResponse, due: Due, *, limit_bytes: int) -> Sequence[bytes]:
    """Reads as much of an answer as its validation needs, and returns these pieces. Raises
    `UpstreamFailed` if it is not of a kind that is due, and the HTTP client's errors."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not due.is_told_by_bytes:
        if kind == "text/html" and not due.page:
            raise no_answer("a page")
        return ()
    if due.events and kind == "text/event-stream" and answer.content_length != 0:
        return ()  # at once, as an event may take long; an empty stream is noticed at its end
    coding = answer.headers.get("content-encoding", "identity").encode()
    holding = Held(due, coding=coding, limit_bytes=limit_bytes)
    if holding.passes:
        return ()
    async for piece in answer.content.iter_any():
        holding.take(piece)
        if holding.passes:
            return holding.pieces
    holding.end()
    return holding.pieces
