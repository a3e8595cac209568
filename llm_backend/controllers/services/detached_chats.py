"""Detached chats: the server completes their answers even if their clients disconnect, and stores
them like those of other chats."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.types import Message, Receive, Send

from llm_backend import exact_json
from llm_backend.access.authentication.principal import Caller
from llm_backend.errors import (
    RETRY_AFTER_S,
    Conflict,
    InvalidRequest,
    LimitReached,
    ServiceUnavailable,
    UnsupportedField,
)
from llm_backend.json_types import JsonMapping
from llm_backend.offload import add_request_bytes, offload
from llm_backend.sse import encode, split_long
from llm_backend.stream_ending import StreamEnding

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

HEADER = "x-llm-backend-detached"
PATHS = frozenset({"/v1/chat/completions", "/chat/completions"})
_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class DetachedChat:
    """A chat in progress: its request, and its answer so far.

    The bytes of the answer are retained for followers, up to a limit. A longer answer continues,
    but can no longer be followed.
    """

    def __init__(self, id: str, path: str, state: Mapping[str, Any], bytes_limit: int) -> None:
        self.id = id
        self._path = path
        self.created_at = int(time.time())
        self.is_answered = False  # True once the last event of the answer has been sent
        self.is_over = False
        self.is_too_long = False
        self.request: JsonMapping | None = None  # None until it has been checked
        self._state = state
        self._bytes_limit = bytes_limit
        self._ending: StreamEnding | None = None
        self._sent: list[bytes] = []
        self._sent_bytes = 0
        self._changed = asyncio.Event()
        self._cancelled = asyncio.Event()

    @property
    def caller(self) -> Caller | None:
        """The caller; None before its key has been checked."""
        return self._state.get("caller")

    @property
    def key(self) -> tuple[str | None, str]:
        """The project and the id; an id is unique only within its project."""
        return (None if self.caller is None else self.caller.project_id, self.id)

    def cancel(self) -> None:
        """Ends the answer, as a disconnect ends that of an attached chat."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """True if `cancel` was called."""
        return self._cancelled.is_set()

    def end(self) -> None:
        """Marks the answer as ended, so that followers stop."""
        self.is_over = True
        self._wake()

    def receive_from(self, receive: Receive) -> Receive:
        """Returns a `receive` without the client's disconnect once the request is checked."""

        async def receive_detached() -> Message:
            if self.request is None:
                return await receive()
            await self._cancelled.wait()
            return {"type": "http.disconnect"}

        return receive_detached

    def send_to(self, send: Send) -> Send:
        """Returns a `send` that also retains the bytes of the answer."""

        async def retain(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._ending = StreamEnding(message["headers"], self._path)
            elif self._ending is not None and (body := message.get("body")):
                self.is_answered = self.is_answered or self._ending.feed(body)
                self._retain(body)
            await send(message)

        return retain

    def as_json(self) -> "api.DetachedChat":
        """Returns the chat in its form for clients, without its messages."""
        request = self.request or {}
        return {
            "object": "chat.detached",
            "id": self.id,
            "created": self.created_at,
            "model": request.get("model"),
            "metadata": request.get("metadata"),
            "is_elsewhere": False,
        }

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields an event of the chat with its messages, then the bytes of its answer from the
        beginning to the end."""
        for generate in (self._first_event, self._answer):
            async with aclosing(generate()) as pieces:
                async for piece in pieces:
                    yield piece

    async def _first_event(self) -> AsyncGenerator[bytes, None]:
        messages = (self.request or {}).get("messages")
        add_request_bytes(messages)
        event = await offload(
            lambda: encode(exact_json.dumps(self.as_json() | {"messages": messages}))
        )
        try:
            for piece in split_long(event):
                yield piece
                await asyncio.sleep(0)  # lets other tasks run although this client never blocks
        finally:
            event = b""  # the error of a disconnect retains this frame for long

    async def _answer(self) -> AsyncGenerator[bytes, None]:
        index = 0
        while not self.is_too_long:
            changed = self._changed
            while index < len(self._sent):
                yield self._sent[index]
                index += 1
            if self.is_over:
                return
            await changed.wait()

    def _retain(self, body: bytes) -> None:
        self._sent_bytes += len(body)
        if self._sent_bytes > self._bytes_limit:
            self.is_too_long = True
            self._sent.clear()
        else:
            self._sent.append(body)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class DetachedChats:
    """The detached chats of this process, by their projects and ids."""

    def __init__(self, *, limit: int, bytes_limit: int) -> None:
        self._limit = limit
        self._bytes_limit = bytes_limit
        self._chats: dict[tuple[str | None, str], DetachedChat] = {}

    @property
    def are_possible(self) -> bool:
        """True if chats can be detached."""
        return self._limit > 0

    def list_unanswered(self, project_id: str) -> list[DetachedChat]:
        """Returns the unanswered chats of a project, the latest first."""
        chats = reversed(self._chats.values())
        return [chat for chat in chats if _is_of(chat, project_id) and not chat.is_answered]

    def find(self, id: str, project_id: str) -> DetachedChat | None:
        """Returns a chat of a project; None if it has none of this id."""
        chat = self._chats.get((project_id, id))
        return chat if chat is not None and _is_of(chat, project_id) else None

    def begin(self, id: str, path: str, state: Mapping[str, Any]) -> DetachedChat:
        """Returns a new chat. It does not count against the limit until `add`, because its body may
        never arrive, or may be refused. Raises `InvalidRequest` or `UnsupportedField`."""
        if path not in PATHS or not _ID.fullmatch(id):
            raise InvalidRequest(
                f"`{HEADER}` is for chat completions; its value must be an id of 8 to 64 letters, "
                "digits, `-` and `_`.",
                param=HEADER,
            )
        if not self.are_possible:
            raise UnsupportedField(
                "This server detaches no chats, as `detached_chats_limit` is 0. "
                f"Leave `{HEADER}` out.",
                param=HEADER,
            )
        return DetachedChat(id, path, state, self._bytes_limit)

    def add(self, chat: DetachedChat, request: JsonMapping) -> None:
        """Adds a chat whose request has been checked, within the limit. Raises `InvalidRequest`,
        `Conflict`, `ServiceUnavailable`, or `LimitReached` for a project with half of the chats
        that the limit allows."""
        if request.get("stream") is not True:
            raise InvalidRequest(
                f"`{HEADER}` is for streams: send `stream: true` with it, or leave it out.",
                param=HEADER,
            )
        if chat.key in self._chats:
            raise still_answered_error(chat.id)
        if len(self._chats) >= self._limit:
            raise ServiceUnavailable(
                f"{self._limit} detached chats are being answered (`detached_chats_limit`)."
            )
        share = (self._limit + 1) // 2
        caller = chat.caller
        if caller and sum(_is_of(one, caller.project_id) for one in self._chats.values()) >= share:
            raise LimitReached(
                f"{share} detached chats of this project are being answered (half of "
                "`detached_chats_limit`).",
                param=HEADER,
                retry_after_s=RETRY_AFTER_S,
            )
        chat.request = request
        self._chats[chat.key] = chat

    def end(self, chat: DetachedChat) -> None:
        """Removes a chat whose answer has ended, or that was refused."""
        if self._chats.get(chat.key) is chat:
            del self._chats[chat.key]
        chat.end()


def still_answered_error(id: str) -> Conflict:
    """Returns the error of a request with the id of a chat that is being answered."""
    return Conflict(f"The detached chat `{id}` is still being answered.", param=HEADER)


def _is_of(chat: DetachedChat, project_id: str) -> bool:
    """True if the chat belongs to the project, and its request has been checked."""
    owner = chat.caller
    return owner is not None and chat.request is not None and owner.project_id == project_id
