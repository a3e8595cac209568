"""Values of stored chats; checks that columns can store texts and metadata."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from llm_backend.json_types import JsonMapping
from llm_backend.store.errors import Unstorable
from llm_backend.store.json_text import is_text

# OpenAI's limits. At four bytes a character, a pair just fits into an index entry of PostgreSQL.
_KEY_CHARACTERS, _VALUE_CHARACTERS = 64, 512


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


def check_texts(*texts: str) -> None:
    """Raises `Unstorable` unless text columns can store all of these."""
    for text in texts:
        if not is_text(text):
            raise Unstorable(f"{text[:64]!r} holds a NUL character or half of a surrogate pair.")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises `Unstorable` unless every pair is within OpenAI's limits and can be stored."""
    check_texts(*metadata, *metadata.values())
    for key, value in metadata.items():
        if len(key) > _KEY_CHARACTERS or len(value) > _VALUE_CHARACTERS:
            raise Unstorable(
                f"A metadata key may have at most {_KEY_CHARACTERS} characters and a value "
                f"{_VALUE_CHARACTERS}: {key[:_KEY_CHARACTERS]!r} is over."
            )
