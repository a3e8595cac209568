"""Detached chats of other processes: of the API processes of this server, and of other servers.

Each process answers the others at a socket in the folder that they share. A connection carries one
request: the chats of a project, or one of them to find, to follow or to cancel. Other servers are
found in the database ([`SharedDetachedChats`](shared_detached_chats.py)).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import msgspec

from llm_backend.controllers.services.detached_chats import DetachedChat, DetachedChats
from llm_backend.controllers.services.shared_detached_chats import RemoteChat, SharedDetachedChats
from llm_backend.errors import EngineUnavailable, ServiceUnavailable
from llm_backend.ipc import Channel, ClientSession, MessageConnection, MessageServer
from llm_backend.json_types import JsonObject
from llm_backend.sse import LONG_EVENT_BYTES, EventPiece, split_long

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_LIMIT_BYTES = 2 * LONG_EVENT_BYTES  # of one message, which may be an event in Base64
TIMEOUT_S = 5.0  # for all replies but events: a process that takes longer is unresponsive

_SOCKET_PREFIX = "chats-"  # short, as the address of a Unix socket has at most 103 bytes

log = logging.getLogger(__name__)


def peer_socket(folder: Path, pid: int) -> Path:
    """Returns the path of the socket of a process. A killed process leaves its socket behind until
    its parent removes it."""
    return folder / f"{_SOCKET_PREFIX}{pid:x}"


class _PeerMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class ListChats(_PeerMessage, frozen=True, kw_only=True):
    """Asks for the chats of a project whose answers are in progress."""

    project_id: str


class FindChat(_PeerMessage, frozen=True, kw_only=True):
    """Asks for a chat whose answer is in progress, or complete but not stored yet."""

    project_id: str
    id: str


class FollowChat(_PeerMessage, frozen=True, kw_only=True):
    """Asks for a chat and then for its events."""

    project_id: str
    id: str


class CancelChat(_PeerMessage, frozen=True, kw_only=True):
    """Asks to end the answer of a chat."""

    project_id: str
    id: str


class Found(_PeerMessage, frozen=True, kw_only=True):
    """A chat in its form for clients. With `is_too_long` its answer cannot be followed."""

    chat: JsonObject
    is_too_long: bool


class EventPart(_PeerMessage, frozen=True, kw_only=True):
    """Bytes of an event of the followed chat; with `is_piece` only a part of the event."""

    body: bytes
    is_piece: bool


class End(_PeerMessage, frozen=True, kw_only=True):
    """The end of the replies; without it the process has died."""


ChatRequest = ListChats | FindChat | FollowChat | CancelChat
Reply = Found | EventPart | End

_SERVER_CHANNEL = Channel(
    decode=msgspec.json.Decoder(ChatRequest).decode, peer="api_process", limit_bytes=_LIMIT_BYTES
)
_CLIENT_CHANNEL = Channel(
    decode=msgspec.json.Decoder(Reply).decode, peer="api_process", limit_bytes=_LIMIT_BYTES
)


class FollowedChat:
    """A chat of another process, whose events are read from it."""

    def __init__(self, found: Found, replies: AsyncGenerator[Reply, None]) -> None:
        self.id: str = found.chat["id"]
        self.is_too_long = found.is_too_long
        self._replies = replies

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the events of the chat, as `DetachedChat.events` does. Raises
        `EngineUnavailable` if its process dies."""
        async with aclosing(self._replies):
            async for reply in self._replies:
                if isinstance(reply, End):
                    return
                if isinstance(reply, EventPart):
                    yield EventPiece(reply.body) if reply.is_piece else reply.body
        raise EngineUnavailable("The process that was writing this answer has ended; ask again.")

    async def close(self) -> None:
        """Disconnects from the process."""
        await self._replies.aclose()


class DetachedPeers:
    """The other processes. Those of this server have sockets in `folder`, like this process, whose
    id is `pid`; None for a server of one process. `shared` has the chats of other servers; None for
    the only process of its database."""

    def __init__(
        self,
        chats: DetachedChats,
        folder: Path | None,
        pid: int,
        shared: SharedDetachedChats | None,
    ) -> None:
        self.chats = chats
        self.shared = shared
        self._folder = folder
        self._own = None if folder is None else peer_socket(folder, pid)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        """Answers requests of the other processes inside the block. Raises `OSError`."""
        if self._own is None:
            yield self
            return

        def open_session(connection: MessageConnection[ChatRequest, Reply]) -> _PeerSession:
            return _PeerSession(connection, self.chats)

        async with MessageServer(self._own, _SERVER_CHANNEL, open_session):
            yield self

    async def list_unanswered(self, project_id: str) -> "list[api.DetachedChat]":
        """Returns the unanswered chats of a project in all processes that reply in time."""
        request = ListChats(project_id=project_id)
        answers = await asyncio.gather(*(_read_replies(path, request) for path in self._others()))
        chats = [_as_chat(found) for answer in answers if answer for found in answer.found]
        return chats + (await self.shared.list_unanswered(project_id) if self.shared else [])

    async def claim(self, chat: DetachedChat, project_id: str) -> bool:
        """Makes a chat of this process known to the others. Returns False if one of them has a chat
        of its id."""
        return self.shared is None or await self.shared.claim(chat, project_id)

    def release(self, chat: DetachedChat) -> None:
        """Removes a chat of this process whose answer has ended."""
        if self.shared is not None:
            self.shared.release(chat)

    async def cancel(self, id: str, project_id: str) -> "api.DetachedChat | None":
        """Ends the answer of a chat, and returns the chat; None if the project has none of this
        id. Raises `ServiceUnavailable` if a process that may have it does not reply."""
        answer = await self._find(CancelChat(project_id=project_id, id=id))
        if answer is not None:
            return _as_chat(answer.found[0])
        return await self.shared.cancel(id, project_id) if self.shared else None

    async def follow(self, id: str, project_id: str) -> FollowedChat | RemoteChat | None:
        """Returns a chat, which the caller reads or closes; None if the project has none of this
        id. Raises `ServiceUnavailable` if a process that may have it does not reply."""
        answer = await self._find(FindChat(project_id=project_id, id=id))
        if answer is None:
            return await self.shared.find(id, project_id) if self.shared else None
        replies = _query(answer.path, FollowChat(project_id=project_id, id=id))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await anext(replies, None)
        except TimeoutError as error:
            log.error("detached_chats_unanswered", extra={"socket": answer.path.name})
            raise _no_reply_error() from error
        if isinstance(found, Found):
            return FollowedChat(found, replies)
        await replies.aclose()
        return None

    async def _find(self, request: FindChat | CancelChat) -> "_FoundChats | None":
        """Returns the first answer with a chat, without waiting for the others. Raises
        `ServiceUnavailable` if there is none and a process does not reply."""
        tasks = [asyncio.create_task(_read_replies(path, request)) for path in self._others()]
        try:
            for one in asyncio.as_completed(tasks):
                if (answer := await one) and answer.found:
                    return answer
            if any(task.result() is None for task in tasks):
                raise _no_reply_error()
            return None
        finally:
            for task in tasks:
                task.cancel()

    def _others(self) -> list[Path]:
        if self._folder is None:
            return []
        sockets = sorted(self._folder.glob(f"{_SOCKET_PREFIX}*"))
        return [path for path in sockets if path != self._own]


def _as_chat(found: Found) -> "api.DetachedChat":
    return cast("api.DetachedChat", found.chat)  # as the other process rendered it


def _no_reply_error() -> ServiceUnavailable:
    return ServiceUnavailable("A process that may have this chat does not answer; try again.")


@dataclass(frozen=True, kw_only=True)
class _FoundChats:
    """The chats that the process at the socket `path` has found."""

    path: Path
    found: Sequence[Found]


async def _read_replies(path: Path, request: ChatRequest) -> _FoundChats | None:
    """Returns the chats in all replies of a process; None if it does not reply in time."""
    try:
        async with asyncio.timeout(TIMEOUT_S), aclosing(_query(path, request)) as replies:
            found = [reply async for reply in replies if isinstance(reply, Found)]
            return _FoundChats(path=path, found=found)
    except TimeoutError:
        log.error("detached_chats_unanswered", extra={"socket": path.name})
        return None


async def _query(path: Path, request: ChatRequest) -> AsyncGenerator[Reply, None]:
    """Sends a request to a process, and yields its replies; none if it has died."""
    try:
        connection: MessageConnection[Reply, ChatRequest]
        connection = await MessageConnection.connect(path, _CLIENT_CHANNEL)
    except OSError:  # the process has died, and its chats are gone
        return
    try:
        connection.send(request)
        while (reply := await connection.receive()) is not None:
            yield reply
            if isinstance(reply, End):
                return
    finally:
        connection.close()


class _PeerSession(ClientSession[ChatRequest, Reply]):
    """The connection of another process, which sends one request."""

    def __init__(
        self, connection: MessageConnection[ChatRequest, Reply], chats: DetachedChats
    ) -> None:
        super().__init__(connection)
        self._chats = chats

    def handle(self, message: ChatRequest) -> None:
        self.start_request(0, self._answer(message))

    async def _answer(self, request: ChatRequest) -> None:
        try:
            with suppress(OSError):  # from `drain`: the other process has disconnected
                await self._send_replies(request)
        finally:  # so that the other process stops waiting, even if a bug prevents `End`
            self.connection.close()

    async def _send_replies(self, request: ChatRequest) -> None:
        match request:
            case ListChats(project_id=project_id):
                for chat in self._chats.list_unanswered(project_id):
                    self._send_found(chat)
                    await self.connection.drain()
            case FindChat(project_id=project_id, id=id):
                if found := self._chats.find(id, project_id):
                    self._send_found(found)
            case CancelChat(project_id=project_id, id=id):
                if cancelled := self._chats.find(id, project_id):
                    cancelled.cancel()
                    self._send_found(cancelled)
            case FollowChat(project_id=project_id, id=id):
                if followed := self._chats.find(id, project_id):
                    self._send_found(followed)
                    await self._send_events(followed)
        self.connection.send(End())

    def _send_found(self, chat: DetachedChat) -> None:
        self.connection.send(Found(chat=dict(chat.as_json()), is_too_long=chat.is_too_long))

    async def _send_events(self, chat: DetachedChat) -> None:
        async with aclosing(chat.events()) as events:
            async for event in events:
                for part in split_long(event):
                    is_piece = isinstance(part, EventPiece)
                    # msgspec encodes no subclass of `bytes`
                    self.connection.send(EventPart(body=bytes(part), is_piece=is_piece))
                    await self.connection.drain()
