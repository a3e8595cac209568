"""Detached chats of the other servers with this database, known by their rows.

A row says that the answer of a chat is in progress, and lets other servers cancel it. The row does
not hold the answer: only the server that writes it has it, until the answer ends and the chat is
stored. While the database cannot be used, a server knows only its own chats.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING, NoReturn, cast

from llm_backend import exact_json
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services.detached_chats import DetachedChat, DetachedChats
from llm_backend.errors import EngineUnavailable
from llm_backend.sse import DONE, encode
from llm_backend.store import DetachedChatLeases, LeasedChat, StoreError

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

LEASE_S = 30  # seconds after which the chats of a dead server count as gone
LINGER_S = 0.5  # time for which the row of an ended chat stays: until the chat itself is stored
POLL_S = 1.0  # interval of polls for cancelled chats, and for the end of a followed chat
MESSAGES_LIMIT_BYTES = 64 * 1024  # of JSON; other servers do not show longer messages
_STILL_WRITTEN = b": the answer is being written\n\n"

log = logging.getLogger(__name__)


class RemoteChat:
    """A chat of another server. Only the beginning and the end of its answer are known here."""

    is_too_long = False

    def __init__(self, leased: LeasedChat, shared: "SharedDetachedChats") -> None:
        self._leased = leased
        self._shared = shared

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields an event of the chat, then comments until its answer has ended. Raises
        `EngineUnavailable` if its server dies, `ServiceUnavailable` if the database cannot be
        used."""
        yield encode(exact_json.dumps({**self._leased.content, "is_elsewhere": True}))
        while await self._shared.is_being_answered(self._leased):
            yield _STILL_WRITTEN
            await asyncio.sleep(POLL_S)
        yield DONE

    async def close(self) -> None:
        """Does nothing: no connection is open."""


class SharedDetachedChats:
    """Leases the detached chats of this process, and finds those of other servers. `server` is the
    name of this server, which all its processes have."""

    def __init__(
        self,
        stored: DetachedChatLeases,
        chats: DetachedChats,
        *,
        server: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stored = stored
        self._chats = chats
        self._server = server
        self._clock = clock
        self.holder = token_hex(8)
        self._leased: dict[DetachedChat, LeasedChat] = {}
        self._ended: list[LeasedChat] = []  # ended chats whose rows are still to be removed
        self._releases = BackgroundTasks()

    async def claim(self, chat: DetachedChat, project_id: str) -> bool:
        """Leases a chat. Returns False if another process has a chat of its id."""
        leased = LeasedChat(
            project_id=project_id,
            id=chat.id,
            server=self._server,
            holder=self.holder,
            until_at=self._until(),
            content=_content_of(chat),
        )
        try:
            is_first = await self._stored.add(leased, now=int(self._clock()))
        except StoreError as error:
            _log_unshared(error)
            is_first = True  # its row may exist nevertheless, so it is removed at the end
        if is_first:
            self._leased[chat] = leased
        return is_first

    def release(self, chat: DetachedChat) -> None:
        """Removes the row of a chat whose answer has ended, in the background."""
        if leased := self._leased.pop(chat, None):
            self._releases.start(self._remove(leased, LINGER_S))

    async def list_unanswered(self, project_id: str) -> "list[api.DetachedChat]":
        """Returns the chats of a project at other servers."""
        try:
            leased = await self._stored.list(
                project_id, other_than=self._server, now=int(self._clock())
            )
        except StoreError as error:
            _log_unshared(error)
            return []
        return [_as_chat(one) for one in leased]

    async def find(self, id: str, project_id: str) -> RemoteChat | None:
        """Returns a chat of another server, which can be followed to its end; None if there is
        none. Raises `ServiceUnavailable`."""
        leased = await self._get(id, project_id)
        return RemoteChat(leased, self) if leased else None

    async def cancel(self, id: str, project_id: str) -> "api.DetachedChat | None":
        """Asks another server to end a chat, which it does within a few seconds. Returns the chat;
        None if there is none. Raises `ServiceUnavailable`."""
        leased = await self._get(id, project_id)
        if leased is None:
            return None
        with translate_store_errors():
            await self._stored.cancel(leased)
        return _as_chat(leased)

    async def is_being_answered(self, chat: LeasedChat) -> bool:
        """True while another server writes the answer. Raises `EngineUnavailable` if that server
        has died, and `ServiceUnavailable` if the database cannot be used."""
        with translate_store_errors():
            leased = await self._stored.get(chat.id, chat.project_id, other_than=self._server)
        if leased is not None and leased.until_at <= self._clock():
            raise EngineUnavailable("The server that was writing this answer has ended; ask again.")
        return leased is not None

    async def renew_forever(self) -> NoReturn:
        """Renews the leases, and ends the chats that other servers cancel."""
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(POLL_S)
            if not self._leased and not self._ended:
                continue
            try:
                while self._ended:
                    await self._stored.remove(self._ended[-1])
                    self._ended.pop()
                if self._clock() - renewed_at >= LEASE_S / 3:
                    await self._stored.renew(self.holder, until=self._until())
                    renewed_at = self._clock()
                for project_id, id in await self._stored.find_cancelled(self.holder):
                    if chat := self._chats.find(id, project_id):
                        chat.cancel()
            except StoreError as error:
                _log_unshared(error)

    async def release_all(self) -> None:
        """Removes the rows of all chats of this process. Called at shutdown."""
        await self._releases.wait_idle()
        with suppress(StoreError):  # the leases expire
            await self._stored.remove_all(self.holder)

    def _until(self) -> int:
        return int(self._clock()) + LEASE_S

    async def _get(self, id: str, project_id: str) -> LeasedChat | None:
        with translate_store_errors():
            leased = await self._stored.get(id, project_id, other_than=self._server)
        return leased if leased and leased.until_at > self._clock() else None

    async def _remove(self, leased: LeasedChat, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self._stored.remove(leased)
        except StoreError as error:
            self._ended.append(leased)
            _log_unshared(error)


def _content_of(chat: DetachedChat) -> "dict[str, object]":
    """Returns what other servers show of a chat. A chat that is not stored has no contents."""
    request = chat.request or {}
    if request.get("store") is not True:
        return {**chat.as_json(), "model": None, "metadata": None, "messages": None}
    messages = request.get("messages")
    is_long = len(exact_json.dumps(messages)) > MESSAGES_LIMIT_BYTES
    return {**chat.as_json(), "messages": None if is_long else messages}


def _as_chat(leased: LeasedChat) -> "api.DetachedChat":
    """Returns a chat in its form for clients, without its messages."""
    shown = {name: value for name, value in leased.content.items() if name != "messages"}
    return cast("api.DetachedChat", shown | {"is_elsewhere": True})


def _log_unshared(error: StoreError) -> None:
    log.warning("detached_chats_not_shared", extra={"reason": str(error)})
