"""Chat messages of the document -> messages with plain text, for models that read text. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.backends.base import Message
from llm_backend.errors import UnsupportedField

__all__ = ["flatten_messages"]


def flatten_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Content as a string or None; roles that templates know; calls in today's form.

    Raises `UnsupportedField` for a part that is not text, naming it.
    """
    return [_flatten(message, f"messages[{place}]") for place, message in enumerate(messages)]


def _flatten(message: Mapping[str, Any], where: str) -> Message:
    if message.get("audio"):
        raise UnsupportedField("Local models hear no audio.", param=f"{where}.audio")
    flat = {**message, "content": _text(message.get("content"), f"{where}.content")}
    if message["role"] == "developer":
        flat["role"] = "system"  # the newer name of the same role; templates know the older
    if message["role"] == "function":
        flat["role"] = "tool"
    if call := flat.pop("function_call", None):
        flat["tool_calls"] = [{"id": "call_0", "type": "function", "function": call}]
    for place, call in enumerate(flat.get("tool_calls") or ()):
        if call["type"] != "function":
            raise UnsupportedField(
                "Local models know calls of type `function` only.",
                param=f"{where}.tool_calls[{place}].type",
            )
    return flat


def _text(content: Any, where: str) -> str | None:
    if content is None or isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{where}[{place}]") for place, part in enumerate(content))


def _part(part: Mapping[str, Any], where: str) -> str:
    if part["type"] in ("text", "refusal"):
        return str(part[part["type"]])
    raise UnsupportedField(
        f"Local models read text; a part of type `{part['type']}` cannot be shown to them.",
        param=f"{where}.type",
    )
