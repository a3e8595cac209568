"""`Idempotency-Key`: what is sent again gets the answer that it got before."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import Message, Send

from llm_backend.access.caller import Caller
from llm_backend.contract.connexion_app import Answer, Gate
from llm_backend.contract.request import Request
from llm_backend.errors import Conflict, InvalidRequest

__all__ = ["Idempotency"]

KEY = "idempotency-key"
REPLAYED = (b"idempotent-replayed", b"true")
KEY_CHARACTERS = 255
KEPT_S = 3600.0
ANSWER_BYTES = 4 * 1024 * 1024  # a larger answer passes, and is made again when it is asked again
ALL_BYTES = 64 * 1024 * 1024
BARE_BYTES = 1024  # what an answer weighs without its body: its headers, its key, its place

# Answers that ask to come again: what comes again is answered anew.
_NOT_KEPT = frozenset({408, 409, 429, 499})

Id = tuple[str | None, str, tuple[tuple[str, str], ...], bytes, str]


@dataclass(kw_only=True)
class _Kept:
    """One key's request, and its answer once that has ended."""

    digest: bytes
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    start: Message | None = None
    body: bytes = b""
    until_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        return BARE_BYTES + len(self.body)


class Idempotency:
    """Stands before a gate: the same key with the same JSON body within an hour is answered with
    the bytes of the first answer, and waits for one that is being made.

    Keys are each caller's and each operation's own, with its path and query. What is kept is in
    this process's memory and bounded; the oldest goes first. An answer that failed, or whose client
    left, is not kept; nor is one to an administrator, which may hold a secret that is told once,
    nor one to a project of which nothing is to be kept.
    """

    def __init__(self, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        self._gate = gate
        self._clock = clock
        self._kept: OrderedDict[Id, _Kept] = OrderedDict()
        self._bytes = 0

    async def __call__(self, request: Request, answer: Answer, send: Send) -> None:
        """Sends the kept answer or the new one. Raises `Conflict` where the key was another
        request's, and `InvalidRequest` for a key that is too long."""
        key = request.http.headers.get(KEY)
        is_kept = request.http.method == "POST" and not request.operation.administers
        is_kept = is_kept and not _keeps_nothing(request.caller)
        if not key or not is_kept or not request.raw_body:
            await self._gate(request, answer, send)
            return
        if len(key) > KEY_CHARACTERS:
            raise InvalidRequest(
                f"The key is longer than {KEY_CHARACTERS} characters.", param="Idempotency-Key"
            )
        await self._answer(_id(request, key), request, answer, send)

    async def _answer(self, name: Id, request: Request, answer: Answer, send: Send) -> None:
        digest = hashlib.sha256(request.raw_body).digest()
        while (kept := self._find(name)) is not None:
            if kept.digest != digest:
                raise Conflict(
                    "This idempotency key was used for another request; use a new one for each.",
                    param="Idempotency-Key",
                    code="idempotency_key_reused",
                )
            if kept.ended.is_set():
                await _replay(kept, send)
                return
            await kept.ended.wait()
        await self._record(name, _Kept(digest=digest), request, answer, send)

    async def _record(
        self, name: Id, kept: _Kept, request: Request, answer: Answer, send: Send
    ) -> None:
        self._kept[name] = kept
        recorder = _Recorder(kept, send)
        try:
            await self._gate(request, answer, recorder)
        finally:
            if recorder.is_whole:
                self._keep(kept)
            elif self._kept.get(name) is kept:
                del self._kept[name]
            kept.ended.set()

    def _find(self, name: Id) -> _Kept | None:
        kept = self._kept.get(name)
        if kept is not None and kept.ended.is_set() and self._clock() >= kept.until_s:
            self._forget(name)
            return None
        return kept

    def _keep(self, kept: _Kept) -> None:
        kept.until_s = self._clock() + KEPT_S
        self._bytes += kept.size_bytes
        while self._bytes > ALL_BYTES:
            self._forget(next(name for name, one in self._kept.items() if one.ended.is_set()))

    def _forget(self, name: Id) -> None:
        self._bytes -= self._kept.pop(name).size_bytes


class _Recorder:
    """Passes an answer on and keeps it, as long as it is worth keeping."""

    def __init__(self, kept: _Kept, send: Send) -> None:
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


async def _replay(kept: _Kept, send: Send) -> None:
    assert kept.start is not None, "a whole answer has begun"
    await send({**kept.start, "headers": [*kept.start["headers"], REPLAYED]})
    await send({"type": "http.response.body", "body": kept.body, "more_body": False})


def _keeps_nothing(caller: Caller | None) -> bool:
    project = caller.project if caller else None
    return project is not None and project.keeps_nothing


def _id(request: Request, key: str) -> Id:
    caller: Caller | None = request.caller
    return (
        caller.key_id if caller else None,
        request.operation.operation_id,
        tuple(sorted(request.path.items())),
        request.http.scope["query_string"],
        key,
    )
