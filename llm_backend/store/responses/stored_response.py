"""Values of responses and their events."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.json_types import JsonMapping
from llm_backend.store.conversations.stored_conversation import StoredItem


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """One response: the object as it was answered, and the items that it adds to its context.

    It continues the response `previous_id`, the conversation `conversation_id`, or nothing.
    """

    id: str
    created_at: int  # unix seconds
    model: str
    status: str
    body: JsonMapping
    input: Sequence[StoredItem] = ()
    output: Sequence[StoredItem] = ()
    previous_id: str | None = None
    conversation_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class Events:
    """Consecutive events of a response, each as one line of JSON; and the number of the last
    one."""

    lines: Sequence[str] = ()
    last_number: int = -1


@dataclass(frozen=True, kw_only=True)
class BackgroundResponseState:
    """State of a background response: its object, its input, and the number of the last stored
    event (None if its events are not stored)."""

    body: JsonMapping
    input: Sequence[StoredItem]
    last_number: int | None
