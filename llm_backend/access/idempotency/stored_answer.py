"""One answer that is kept: noted as it is sent, and sent again."""

import asyncio
from dataclasses import dataclass, field

from starlette.types import Message, Send

from llm_backend.store.administration import WholeAnswer

__all__ = ["ANSWER_BYTES", "AnswerRecorder", "StoredAnswer", "replay"]

REPLAYED = (b"idempotent-replayed", b"true")
ANSWER_BYTES = 4 * 1024 * 1024  # a larger answer passes, and is made again when it is asked again
BARE_BYTES = 1024  # what an answer weighs without its body: its headers, its key, its place

# Answers that ask to come again: what comes again is answered anew.
_NOT_KEPT = frozenset({408, 409, 429, 499})


@dataclass(kw_only=True)
class StoredAnswer:
    """One key's request, and its answer once that has ended."""

    digest: bytes
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    start: Message | None = None
    body: bytes = b""
    until_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return BARE_BYTES + len(self.body)

    @property
    def whole(self) -> WholeAnswer:
        """The answer, for others; it has ended."""
        assert self.start is not None, "a whole answer has begun"
        pairs = [(name.decode("latin-1"), value.decode("latin-1"))
                 for name, value in self.start["headers"]]  # fmt: skip
        return WholeAnswer(status=self.start["status"], headers=pairs, body=self.body)

    def is_now(self, answer: WholeAnswer) -> None:
        """Others have made it."""
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
        ]
        self.start = {
            "type": "http.response.start", "status": answer.status, "headers": headers,
        }  # fmt: skip
        self.body = answer.body


class AnswerRecorder:
    """Passes an answer on and keeps it, as long as it is worth keeping."""

    def __init__(self, kept: StoredAnswer, send: Send) -> None:
        self._kept = kept
        self._send = send
        self._body = bytearray()  # joined as it comes: a small event weighs no more than its bytes
        self._is_kept = True
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            self._is_kept = status < 500 and status not in _NOT_KEPT
            # Others add headers of their own later.
            self._kept.start = {**message, "headers": list(message["headers"])}
        elif message["type"] == "http.response.body":
            self._note(message.get("body", b""))
        else:
            self._is_kept = False  # a file's path and the like: what it leads to may change
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._kept.body = bytes(self._body)
            self.is_whole = self._is_kept

    def _note(self, piece: bytes) -> None:
        self._is_kept = self._is_kept and len(self._body) + len(piece) <= ANSWER_BYTES
        if self._is_kept:
            self._body += piece
        else:
            self._body.clear()


async def replay(kept: StoredAnswer, send: Send) -> None:
    """Sends it again, and says so."""
    assert kept.start is not None, "a whole answer has begun"
    await send({**kept.start, "headers": [*kept.start["headers"], REPLAYED]})
    await send({"type": "http.response.body", "body": kept.body, "more_body": False})
