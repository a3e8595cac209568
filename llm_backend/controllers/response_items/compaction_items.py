"""Compaction items: their encoded summary, and the items of a conversation that they replace. Pure
but for the ids that it generates.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.controllers.response_items.encrypted_content import decode_opaque, encode_opaque
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.json_types import JsonObject

_FORM = "llmbc1"


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """Summary of a part of a conversation. A model reads it before the `kept` items that precede
    it; it replaces all earlier items but system messages. With `kept` None, the replaced items have
    been removed, and the others are read in their order."""

    summary: str
    kept: int | None = None


def begin_compaction() -> JsonObject:
    """Returns a new `compaction` item without content, for clients while the summary is made."""
    return {"id": f"cmp_{uuid.uuid4().hex}", "type": "compaction", "encrypted_content": ""}


def end_compaction(begun: Item, compaction: Compaction) -> JsonObject:
    """Returns the `begun` item with this content."""
    return {**begun, "encrypted_content": _encode_compaction(compaction)}


def compaction_item(compaction: Compaction) -> JsonObject:
    """Returns a new `compaction` item with this content."""
    return end_compaction(begin_compaction(), compaction)


def parse_compaction(item: Item) -> Compaction | None:
    """Returns the content of a compaction item; None for another server's."""
    content = item["encrypted_content"]
    if (summary := decode_opaque(content)) is not None:
        return Compaction(summary=summary)
    if (text := decode_opaque(content, form=_FORM)) is None:
        return None
    try:
        fields = json.loads(text)
        return Compaction(summary=str(fields["summary"]), kept=max(0, int(fields["kept"])))
    except (ValueError, KeyError, TypeError):  # another server's content with the same tag
        return None


def reading_order(items: Sequence[Item]) -> list[int]:
    """Returns the indices of the items that a model reads, in reading order. The latest summary
    comes before the items that it keeps; only system messages are read before the summary."""
    for index in range(len(items) - 1, -1, -1):
        compaction = parse_compaction(items[index]) if _is_compaction(items[index]) else None
        if compaction is not None and compaction.kept is not None:
            begin = max(0, index - compaction.kept)
            system_messages = [one for one in range(begin) if _is_system_message(items[one])]
            kept_indices = [one for one in range(begin, index) if not _is_compaction(items[one])]
            return [*system_messages, index, *kept_indices, *range(index + 1, len(items))]
    return list(range(len(items)))


def _encode_compaction(compaction: Compaction) -> str:
    if compaction.kept is None:
        return encode_opaque(compaction.summary)
    fields = {"kept": compaction.kept, "summary": compaction.summary}
    return encode_opaque(json.dumps(fields), form=_FORM)


def _is_system_message(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] in ("system", "developer"))


def _is_compaction(item: Item) -> bool:
    return bool(item["type"] == "compaction")
