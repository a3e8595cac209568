"""Store of conversations: ordered items, appended by responses and by clients."""

from collections.abc import Mapping, Sequence

from llm_backend.store.conversations import conversation_rows
from llm_backend.store.conversations.stored_conversation import StoredConversation, StoredItem
from llm_backend.store.database.database import Database
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.text_checks import check_metadata, check_texts


class ConversationStore:
    """The conversations of a database. All methods but `add` raise `Missing` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, conversation: StoredConversation, items: Sequence[StoredItem]) -> None:
        """Stores a conversation with its first items; durable on return.

        Raises `Unstorable` for metadata over OpenAI's limits, or for an id that no column can
        store.
        """
        check_metadata(conversation.metadata)
        check_texts(*(item.id for item in items))
        await self._database.write(conversation_rows.add, conversation, items)

    async def get(self, id: str) -> StoredConversation:
        """The conversation with this id."""
        return await self._database.read(conversation_rows.get, id)

    async def update_metadata(self, id: str, metadata: Mapping[str, str]) -> StoredConversation:
        """Replaces the metadata of the conversation. Raises `Unstorable` as `add` does."""
        check_metadata(metadata)
        return await self._database.write(conversation_rows.update_metadata, id, metadata)

    async def delete(self, id: str) -> None:
        """Deletes the conversation, and its items that nothing else contains."""
        await self._database.write(conversation_rows.delete_conversation, id)

    async def add_items(self, id: str, items: Sequence[StoredItem]) -> list[StoredItem]:
        """Appends items, and returns them as stored; durable on return. Raises `Unstorable` as
        `add` does."""
        check_texts(*(item.id for item in items))
        return await self._database.write(conversation_rows.add_items, id, items)

    async def items(
        self, id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[StoredItem]:
        """A page of the items. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(conversation_rows.find_items, request, id)

    async def item(self, id: str, item_id: str) -> StoredItem:
        """One item. Raises `Missing` for its id, too."""
        return await self._database.read(conversation_rows.get_item, id, item_id)

    async def delete_item(self, id: str, item_id: str) -> StoredConversation:
        """Removes an item, and returns the conversation. Raises `Missing` for its id, too."""
        return await self._database.write(conversation_rows.delete_item, id, item_id)
