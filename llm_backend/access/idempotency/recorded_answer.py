"""Stored answer of an idempotency key: recorded while it is sent, and replayed."""

import asyncio
from dataclasses import dataclass, field

from starlette.types import Message, Send

from llm_backend.access.idempotency.shared_answers import RETENTION_S
from llm_backend.store.administration import StoredAnswer

REPLAYED = (b"idempotent-replayed", b"true")
# A larger answer is sent and not stored.
ANSWER_BYTES = 4 * 1024 * 1024
BARE_BYTES = 1024  # memory of an answer without its body: headers, key, table entry

# Statuses that ask the client to retry: a retry is answered anew.
_NOT_STORED = frozenset({408, 409, 429, 499})


@dataclass(kw_only=True)
class RecordedAnswer:
    """Digest of the request of one key, and the answer, once it has ended."""

    digest: bytes
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    start: Message | None = None
    body: bytes = b""
    retention_s: float = RETENTION_S  # from the answer's end
    until_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """Size in memory."""
        return BARE_BYTES + len(self.body)

    @property
    def stored_answer(self) -> StoredAnswer:
        """The ended answer, as it is shared with other servers."""
        assert self.start is not None, "an ended answer has begun"
        pairs = [(name.decode("latin-1"), value.decode("latin-1"))
                 for name, value in self.start["headers"]]  # fmt: skip
        return StoredAnswer(status=self.start["status"], headers=pairs, body=self.body)

    def set_stored_answer(self, answer: StoredAnswer, retention_s: float) -> None:
        """Sets the answer that another server has made, and the rest of its retention."""
        self.retention_s = retention_s
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
        ]
        self.start = {
            "type": "http.response.start", "status": answer.status, "headers": headers,
        }  # fmt: skip
        self.body = answer.body


class AnswerRecorder:
    """Sends an answer on and records it, unless it becomes too large or fails."""

    def __init__(self, recorded: RecordedAnswer, send: Send) -> None:
        self._recorded = recorded
        self._send = send
        # One buffer, in which a small event takes no more memory than its bytes.
        self._body = bytearray()
        self._is_storable = True
        self.is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            self._is_storable = status < 500 and status not in _NOT_STORED
            # A copy, because later senders add headers of their own.
            self._recorded.start = {**message, "headers": list(message["headers"])}
        elif message["type"] == "http.response.body":
            self._append(message.get("body", b""))
        else:
            # Such as a path of a file, whose content may change.
            self._is_storable = False
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._recorded.body = bytes(self._body)
            self.is_whole = self._is_storable

    def _append(self, piece: bytes) -> None:
        self._is_storable = self._is_storable and len(self._body) + len(piece) <= ANSWER_BYTES
        if self._is_storable:
            self._body += piece
        else:
            self._body.clear()


async def replay(recorded: RecordedAnswer, send: Send) -> None:
    """Sends a stored answer again, with the header `idempotent-replayed`."""
    assert recorded.start is not None, "an ended answer has begun"
    await send({**recorded.start, "headers": [*recorded.start["headers"], REPLAYED]})
    await send({"type": "http.response.body", "body": recorded.body, "more_body": False})
