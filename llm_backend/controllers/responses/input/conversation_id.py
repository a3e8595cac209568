"""Id of the conversation that a response continues (pure)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


def conversation_of(body: "api.CreateResponse") -> str | None:
    """Returns the conversation's id from either of the document's two forms."""
    value = body.get("conversation")
    return value["id"] if isinstance(value, Mapping) else value
