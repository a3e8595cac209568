"""Compaction items: what they say, and which items of a conversation they stand for. Pure but for
the ids made up.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_backend.controllers.responses.encrypted_content import decode_opaque, encode_opaque

__all__ = ["Compaction", "compaction_item", "parse_compaction", "read_places"]

Json = dict[str, Any]
Item = Mapping[str, Any]

_FORM = "llmbc1"


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """A summary of what was said. Of the items before it so many are `kept`, those right before it:
    they are read behind it, and it stands for all others but messages of the system. None: it
    stands for what is not there any more, and whatever is there is read where it is."""

    summary: str
    kept: int | None = None


def compaction_item(compaction: Compaction) -> Json:
    """A new item that carries this."""
    return {
        "id": f"cmp_{uuid.uuid4().hex}",
        "type": "compaction",
        "encrypted_content": _encode_compaction(compaction),
    }


def parse_compaction(item: Item) -> Compaction | None:
    """What such an item carries; None for one that is not this server's."""
    content = item["encrypted_content"]
    if (summary := decode_opaque(content)) is not None:
        return Compaction(summary=summary)
    if (text := decode_opaque(content, form=_FORM)) is None:
        return None
    try:
        said = json.loads(text)
        return Compaction(summary=str(said["summary"]), kept=max(0, int(said["kept"])))
    except (ValueError, KeyError, TypeError):  # somebody's else under this form's name
        return None


def read_places(items: Sequence[Item]) -> list[int]:
    """The places of the items that are read, in the order in which they are: the latest summary
    that stands for others comes before what it keeps."""
    for place in range(len(items) - 1, -1, -1):
        compaction = parse_compaction(items[place]) if _is_compaction(items[place]) else None
        if compaction is not None and compaction.kept is not None:
            begin = max(0, place - compaction.kept)
            rules = [one for one in range(begin) if _is_rule(items[one])]
            kept = [one for one in range(begin, place) if not _is_compaction(items[one])]
            return [*rules, place, *kept, *range(place + 1, len(items))]
    return list(range(len(items)))


def _encode_compaction(compaction: Compaction) -> str:
    if compaction.kept is None:
        return encode_opaque(compaction.summary)
    said = {"kept": compaction.kept, "summary": compaction.summary}
    return encode_opaque(json.dumps(said), form=_FORM)


def _is_rule(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] in ("system", "developer"))


def _is_compaction(item: Item) -> bool:
    return bool(item["type"] == "compaction")
