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

_LIMIT_BYTES = 2 * LONG_EVENT_BYTES  # of one message: an event in Base64
TIMEOUT_S = 5.0  # for all replies but a chat's events: a process that takes longer hangs

_SOCKET_PREFIX = "chats-"  # short, as the address of a Unix socket has at most 103 bytes

log = logging.getLogger(__name__)


def peer_socket(folder: Path, pid: int) -> Path:
    """Returns the path of the socket of a process. A killed process leaves its socket behind until
    its parent removes it."""
    return folder / f"{_SOCKET_PREFIX}{pid:x}"


class _PeerMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class ListChats(_PeerMessage, frozen=True, kw_only=True):
    """Asks for the chats of a project whose answer is still being written."""

    project_id: str


class FindChat(_PeerMessage, frozen=True, kw_only=True):
    """Asks for a chat, also for one whose answer is complete but not stored yet."""

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
    """A chat in its form for clients; `is_too_long` if its answer cannot be followed."""

    chat: JsonObject
    is_too_long: bool


class EventPart(_PeerMessage, frozen=True, kw_only=True):
    """Bytes of the events of the chat that is followed."""

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
    """The other processes, found by their sockets in `folder`; none if it is None. The id of this
    one is `pid`. `shared` has the chats of the database; None for a single process, which has
    all."""

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
        """Answers the questions of the other processes meanwhile. Raises `OSError`."""
        if self._own is None:
            yield self
            return

        def open_session(connection: MessageConnection[ChatRequest, Reply]) -> _PeerSession:
            return _PeerSession(connection, self.chats)

        async with MessageServer(self._own, _SERVER_CHANNEL, open_session):
            yield self

    async def of(self, project_id: str) -> "list[api.DetachedChat]":
        """Returns the unanswered chats of a project, as far as the processes answer in time."""
        request = ListChats(project_id=project_id)
        answers = await asyncio.gather(*(_all(path, request) for path in self._others()))
        chats = [_as_chat(found) for answer in answers if answer for found in answer.found]
        return chats + (await self.shared.of(project_id) if self.shared else [])

    async def claim(self, chat: DetachedChat, project_id: str) -> bool:
        """Makes a chat of this process known to the others; False if one of them has a chat of its
        id."""
        return self.shared is None or await self.shared.claim(chat, project_id)

    def release(self, chat: DetachedChat) -> None:
        """Removes a chat of this process whose answer has ended."""
        if self.shared is not None:
            self.shared.release(chat)

    async def cancel(self, id: str, project_id: str) -> "api.DetachedChat | None":
        """Ends the answer of a chat, and returns the chat; None if the project has none of this
        id. Raises `ServiceUnavailable` if a process that may have it hangs."""
        answer = await self._find(CancelChat(project_id=project_id, id=id))
        if answer is not None:
            return _as_chat(answer.found[0])
        return await self.shared.cancel(id, project_id) if self.shared else None

    async def follow(self, id: str, project_id: str) -> FollowedChat | RemoteChat | None:
        """Returns a chat, to be read or closed; None if the project has none of this id. Raises
        `ServiceUnavailable` if a process that may have it hangs."""
        answer = await self._find(FindChat(project_id=project_id, id=id))
        if answer is None:
            return await self.shared.find(id, project_id) if self.shared else None
        replies = _query(answer.path, FollowChat(project_id=project_id, id=id))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await anext(replies, None)
        except TimeoutError as error:
            log.error("detached_chats_unanswered", extra={"socket": answer.path.name})
            raise _hangs() from error
        if isinstance(found, Found):
            return FollowedChat(found, replies)
        await replies.aclose()
        return None

    async def _find(self, request: FindChat | CancelChat) -> "_FoundChats | None":
        """Returns the first answer with a chat, without waiting for the others. Raises
        `ServiceUnavailable` if there is none and a process hangs."""
        tasks = [asyncio.create_task(_all(path, request)) for path in self._others()]
        try:
            for one in asyncio.as_completed(tasks):
                if (answer := await one) and answer.found:
                    return answer
            if any(task.result() is None for task in tasks):
                raise _hangs()
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


def _hangs() -> ServiceUnavailable:
    return ServiceUnavailable("A process that may have this chat does not answer; try again.")


@dataclass(frozen=True, kw_only=True)
class _FoundChats:
    """The chats that the process of a socket has found."""

    path: Path
    found: Sequence[Found]


async def _all(path: Path, request: ChatRequest) -> _FoundChats | None:
    """Returns the whole answer of a process; None if it hangs."""
    try:
        async with asyncio.timeout(TIMEOUT_S), aclosing(_query(path, request)) as replies:
            found = [reply async for reply in replies if isinstance(reply, Found)]
            return _FoundChats(path=path, found=found)
    except TimeoutError:
        log.error("detached_chats_unanswered", extra={"socket": path.name})
        return None


async def _query(path: Path, request: ChatRequest) -> AsyncGenerator[Reply, None]:
    """Yields the replies of a process; none if it has died."""
    try:
        connection: MessageConnection[Reply, ChatRequest]
        connection = await MessageConnection.connect(path, _CLIENT_CHANNEL)
    except OSError:  # it has died, and its chats with it
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
    """The connection of another process, which asks one request."""

    def __init__(
        self, connection: MessageConnection[ChatRequest, Reply], chats: DetachedChats
    ) -> None:
        super().__init__(connection)
        self._chats = chats

    def handle(self, message: ChatRequest) -> None:
        self.start_request(0, self._answer(message))

    async def _answer(self, request: ChatRequest) -> None:
        try:
            with suppress(OSError):  # of `drain`: the other process reads no more
                await self._send_replies(request)
        finally:  # the other process waits no longer if a defect ends this before `End`
            self.connection.close()

    async def _send_replies(self, request: ChatRequest) -> None:
        match request:
            case ListChats(project_id=project_id):
                for chat in self._chats.of(project_id):
                    self._send_found(chat)
                    await self.connection.drain()
            case FindChat(project_id=project_id, id=id):
                if there := self._chats.find(id, project_id):
                    self._send_found(there)
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
