"""Responses, conversations and the items that they hold, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_backend.store.stored_chat import Body

__all__ = ["Events", "Standing", "StoredConversation", "StoredItem", "StoredResponse"]


@dataclass(frozen=True, kw_only=True)
class StoredItem:
    """One item of the document, as it is shown; `id` stands in it too."""

    id: str
    item: Body


@dataclass(frozen=True, kw_only=True)
class StoredConversation:
    """A conversation without its items."""

    id: str
    created_at: int  # unix seconds
    metadata: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredResponse:
    """One response: the object as it was answered, and the items that it adds to what came before.

    What came before is the response `previous_id`, the conversation `conversation_id`, or nothing.
    """

    id: str
    created_at: int  # unix seconds
    model: str
    status: str
    body: Body
    input: Sequence[StoredItem] = ()
    output: Sequence[StoredItem] = ()
    previous_id: str | None = None
    conversation_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class Events:
    """Events of a response, each as one line of JSON, in order; and the number of the last one."""

    lines: Sequence[str] = ()
    last_number: int = -1


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A response that is being answered in the background: the object as it was, its input, and the
    number of the last event that was told of it, None where no events are kept."""

    body: Body
    input: Sequence[StoredItem]
    last_number: int | None
