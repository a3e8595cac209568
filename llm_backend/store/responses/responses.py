"""Store of responses: their bodies, and the items that the next response continues."""

from llm_backend.json_types import JsonMapping
from llm_backend.store.conversations import conversation_rows, item_rows
from llm_backend.store.conversations.stored_conversation import StoredItem
from llm_backend.store.database.database import Database
from llm_backend.store.keyset_pages import Order, Page, PageRequest
from llm_backend.store.responses import response_rows
from llm_backend.store.responses.stored_response import StoredResponse
from llm_backend.store.text_checks import check_texts


class ResponseStore:
    """The responses of a database. Every method but `add` raises `Missing` for an unknown id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, response: StoredResponse) -> None:
        """Stores a response with its items, also in its conversation; durable on return.

        Raises `Duplicate`, `Unstorable`, and `Missing` if its conversation was deleted.
        """
        check_texts(response.id, response.model, *(item.id for item in response.input))
        await self._database.write(response_rows.add, response)

    async def get(self, id: str) -> JsonMapping:
        """The response object as it was answered."""
        return await self._database.read(response_rows.get_body, id)

    async def input(
        self, id: str, *, after: str | None = None, limit: int = 20, order: Order = "desc"
    ) -> Page[StoredItem]:
        """A page of its input items. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order=order)
        return await self._database.read(response_rows.find_input, request, id)

    async def load_context(
        self, *, previous_id: str | None = None, conversation_id: str | None = None
    ) -> list[StoredItem]:
        """All items that a new response continues, in order. Raises `Unfinished`,
        `ResponseNotInConversation`."""
        if conversation_id is not None:
            return await self._database.read(conversation_rows.all_items, conversation_id)
        if previous_id is not None:
            return await self._database.read(response_rows.context, previous_id)
        return []

    async def item(self, id: str) -> StoredItem:
        """An item, if any response or conversation of the owner contains it."""
        return await self._database.read(item_rows.get, id)
