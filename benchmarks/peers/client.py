"""The load client: raw HTTP/1.1 over asyncio, a new connection for each request.

While a run lasts it does nothing but note when bytes came; what was in them is read afterwards, so
that the client takes as little as it can of the cores that the server needs.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["RequestTrace", "parse_answer", "send_chat"]

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RequestTrace:
    """Trace of one request: arrival of each piece of text, in seconds from its start; `error` is
    the reason why it does not count.
    """

    arrivals: list[float]
    text: str
    tokens: int
    prompt_tokens: int
    cached_tokens: int
    error: str | None


class _Connection(asyncio.Protocol):
    """Sends one request and keeps what comes back, with its time."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.pieces: list[tuple[float, bytes]] = []
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]  # uvloop's is no Transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.perf_counter(), data))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(error)


async def send_chat(port: int, body: Body, timeout_s: float = 90) -> RequestTrace:
    """One streamed chat completion."""
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"host: 127.0.0.1:{port}\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(data)}\r\n"
        "connection: close\r\n\r\n"
    ).encode()
    started_at = time.perf_counter()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                lambda: _Connection(head + data), "127.0.0.1", port
            )
            await connection.closed
    except (OSError, TimeoutError) as error:
        return _failure(f"{type(error).__name__}: {error}")
    return parse_answer(connection.pieces, started_at, body["max_tokens"])


def parse_answer(
    pieces: list[tuple[float, bytes]], started_at: float, max_tokens: int
) -> RequestTrace:
    """Parse the bytes of an answer, given the arrival of each piece of them.

    Tokens are what `usage` says; where a server does not say, an answer that ended by its length
    has as many as were asked for, any other as many as it had pieces.
    """
    status, events = _events(pieces)
    if status != 200:
        return _failure(f"HTTP {status}")
    arrivals: list[float] = []
    texts: list[str] = []
    usage: Body = {}
    error = reason = None
    for came_at, event in events:
        error = error or event.get("error")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text = delta.get("content") or delta.get("reasoning_content")
            reason = choice.get("finish_reason") or reason
            if text:
                arrivals.append(came_at - started_at)
                texts.append(text)
    guessed = max_tokens if reason == "length" and texts else len(texts)
    if error is None and reason is None:
        error = "the stream broke off"
    return RequestTrace(
        arrivals=arrivals,
        text="".join(texts),
        tokens=usage.get("completion_tokens") or guessed,
        prompt_tokens=usage.get("prompt_tokens") or 0,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        error=str(error or "no text came")[:200] if error or not texts else None,
    )


def _failure(error: str) -> RequestTrace:
    return RequestTrace(
        arrivals=[], text="", tokens=0, prompt_tokens=0, cached_tokens=0, error=error[:200]
    )


def _events(pieces: list[tuple[float, bytes]]) -> tuple[int, Iterator[tuple[float, Body]]]:
    """The status, and each event with the time at which its last byte came."""
    whole = b"".join(data for _, data in pieces)
    head, _, rest = whole.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
    is_chunked = b"transfer-encoding: chunked" in head.lower()
    return status, _chunk_times(rest, len(head) + 4, is_chunked, pieces)


def _chunk_times(
    rest: bytes, start: int, is_chunked: bool, pieces: list[tuple[float, bytes]]
) -> Iterator[tuple[float, Body]]:
    ends: list[tuple[int, float]] = []  # where in the whole each piece ends, and when it came
    end = 0
    for came_at, data in pieces:
        end += len(data)
        ends.append((end, came_at))
    parts = iter(ends)
    end, came_at = next(parts, (0, 0.0))
    held = b""
    for place, data in _chunks(rest, start) if is_chunked else [(start + len(rest), rest)]:
        while end < place:
            end, came_at = next(parts)
        held += data
        *lines, held = held.replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                yield came_at, json.loads(line[5:])


def _chunks(rest: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """The chunks of a body, each with the place in the whole where it ends."""
    place = 0
    while (line_end := rest.find(b"\r\n", place)) >= 0:
        size = int(rest[place:line_end].split(b";")[0], 16)
        if not size:
            return
        begin = line_end + 2
        place = begin + size + 2
        yield start + begin + size, rest[begin : begin + size]
