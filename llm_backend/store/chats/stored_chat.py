"""Values of stored chats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from llm_backend.json_types import JsonMapping


class ChatStatus(StrEnum):
    """Completeness of the answer."""

    COMPLETED = "completed"
    INCOMPLETE = "incomplete"  # the client disconnected, or the stream failed


@dataclass(frozen=True, kw_only=True)
class StoredChat:
    """One chat: the request without its messages, and its completion object, with all required
    fields. `metadata` takes precedence over that of `response`, if any.
    """

    id: str
    created_at: int  # unix seconds
    model: str
    request: JsonMapping
    response: JsonMapping
    metadata: Mapping[str, str] = field(default_factory=dict)
    status: ChatStatus = ChatStatus.COMPLETED
    owner: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewChat:
    """A chat to store, with its input messages."""

    chat: StoredChat
    messages: Sequence[JsonMapping]


@dataclass(frozen=True, kw_only=True)
class StoredMessage:
    """One input message of a stored chat, as it was sent; `id` is derived from its position."""

    id: str
    message: JsonMapping
