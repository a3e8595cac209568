"""Chats for the tests of the store, and the list of all stored chats."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

from llm_backend.store import ChatStore, StoredChat

_numbers = count(1)


def a_chat(**changes: Any) -> StoredChat:
    """A chat that differs from every other in its id, and from a plain one by `changes`."""
    id = changes.pop("id", None) or f"chatcmpl-{next(_numbers)}"
    plain: dict[str, Any] = {
        "created_at": 1_700_000_000,
        "model": "small",
        "request": {"model": "small", "temperature": 0.5},
        "response": {
            "id": id,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}}],
        },
    }
    return StoredChat(id=id, **(plain | changes))


def some_messages(number: int = 1) -> list[dict[str, Any]]:
    """Messages a user might have sent."""
    return [{"role": "user", "content": f"Question {position}"} for position in range(number)]


async def every_chat(chats: ChatStore) -> AsyncIterator[StoredChat]:
    """All stored chats, in order."""
    page = await chats.list(limit=500)
    while True:
        for chat in page.items:
            yield chat
        if not page.has_more:
            return
        page = await chats.list(limit=500, after=page.last_id)
