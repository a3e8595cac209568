"""Store of chats: requests with their completions, found by id, model and metadata."""

from collections.abc import Mapping, Sequence

from llm_backend.json_types import JsonMapping
from llm_backend.store.chats import chat_rows
from llm_backend.store.chats.stored_chat import (
    NewChat,
    StoredChat,
    StoredMessage,
    check_metadata,
    check_texts,
)
from llm_backend.store.database.database import Database
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.ownership import as_owner


class ChatStore:
    """The stored chats of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, chat: StoredChat, messages: Sequence[JsonMapping]) -> None:
        """Store a chat with its input messages; durable on return.

        Raises `Duplicate`, and `Unstorable` for metadata over OpenAI's bounds or a text that no
        column can hold; bodies may hold any text.
        """
        _check(chat)
        new = NewChat(chat=chat, messages=messages)
        await self._database.insert(chat_rows.add, new)

    async def add_free(self, added: Sequence[NewChat]) -> list[str]:
        """Store chats in one transaction, at little more than the cost of one; durable on
        return. Chats whose id is taken are left out, and their ids returned. Each chat belongs
        to the owner that it names, not to the caller's. Raises `Unstorable` as `add` does, and
        stores none then."""
        for one in added:
            _check(one.chat)
        with as_owner(None):
            return await self._database.insert(chat_rows.add_free, added)

    async def get(self, id: str) -> StoredChat:
        """The chat with this id. Raises `Missing`."""
        return await self._database.read(chat_rows.get, id)

    async def list(
        self,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
    ) -> Page[StoredChat]:
        """A page of the chats of `model` with all pairs of `metadata`, by time of creation.

        Chats of the same second are in the order in which they were stored. Raises `UnknownCursor`
        if no chat has the id `after`.
        """
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(chat_rows.find, request, model, metadata or {})

    async def messages(
        self, id: str, *, after: str | None = None, limit: int = 20, order: Order = "asc"
    ) -> Page[StoredMessage]:
        """A page of the input messages of a chat. Raises `Missing`, `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(chat_rows.find_messages, request, id)

    async def update_metadata(self, id: str, metadata: Mapping[str, str]) -> StoredChat:
        """Replace the metadata of the chat, and return the chat.

        Raises `Missing`, and `Unstorable` as `add` does.
        """
        check_metadata(metadata)
        return await self._database.write(chat_rows.update_metadata, id, metadata)

    async def delete(self, id: str) -> None:
        """Delete the chat with its messages and its metadata. Raises `Missing`."""
        await self._database.write(chat_rows.delete, id)


def _check(chat: StoredChat) -> None:
    check_texts(chat.id, chat.model, chat.owner or "")
    check_metadata(chat.metadata)
