"""Values of conversations and their items."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class StoredItem:
    """One item, as clients see it; `item` has the `id`, too."""

    id: str
    item: JsonMapping


@dataclass(frozen=True, kw_only=True)
class StoredConversation:
    """A conversation without its items."""

    id: str
    created_at: int  # unix seconds
    metadata: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
