"""The client's events, validated against the document."""

from collections.abc import Mapping
from typing import Any

from llm_backend.contract.body import check_nul
from llm_backend.contract.validation import Validators
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject, JsonValue

_PREFIX = "RealtimeClientEvent"

SCHEMAS: Mapping[str, str] = {
    "session.update": f"{_PREFIX}SessionUpdate",
    "conversation.item.create": f"{_PREFIX}ConversationItemCreate",
    "conversation.item.retrieve": f"{_PREFIX}ConversationItemRetrieve",
    "conversation.item.truncate": f"{_PREFIX}ConversationItemTruncate",
    "conversation.item.delete": f"{_PREFIX}ConversationItemDelete",
    "input_audio_buffer.append": f"{_PREFIX}InputAudioBufferAppend",
    "input_audio_buffer.commit": f"{_PREFIX}InputAudioBufferCommit",
    "input_audio_buffer.clear": f"{_PREFIX}InputAudioBufferClear",
    "response.create": f"{_PREFIX}ResponseCreate",
    "response.cancel": f"{_PREFIX}ResponseCancel",
}
"""Schemas of the document by type of event; a session has a handler for each."""


def check_event(event: JsonObject, validators: Validators) -> None:
    """Raises `InvalidRequest`, naming the field, for an event that breaks its schema, or has a NUL
    character, for which each later response would be refused."""
    check_nul(event)
    kind = event.get("type")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        raise unsupported_event_error(kind, f"these are: {', '.join(SCHEMAS)}")
    validators.component(SCHEMAS[kind]).check_request(event)


def unsupported_event_error(kind: JsonValue, hint: str) -> InvalidRequest:
    """Returns the error of an event of this type, or of none, with a hint at the supported ones."""
    if kind is None:
        return InvalidRequest(
            f"Missing required parameter: 'type'; {hint}.",
            param="type",
            code="missing_required_parameter",
        )
    return InvalidRequest(f"The event `{str(kind)[:80]}` is not supported; {hint}.", param="type")


def client_event_id(event: Mapping[str, Any]) -> str | None:
    """Returns the id that the client gave its event."""
    value = event.get("event_id")
    return value if isinstance(value, str) else None
