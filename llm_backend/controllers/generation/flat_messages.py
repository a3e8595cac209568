"""Translation of the document's chat messages to messages of backends. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.backends.base import Message
from llm_backend.backends.local.media import Audio, Content, Image, MediaPart
from llm_backend.errors import UnsupportedField

_CALL = "call_0"  # id of calls in the deprecated form, whose messages have none


def flatten_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Returns messages with string content, or a list if they have images or audio; roles that
    templates know; calls in the current form.

    Raises `UnsupportedField`, with its path, for a part of another type.
    """
    return [_flatten(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _flatten(message: Mapping[str, Any], where: str) -> Message:
    if message.get("audio"):
        raise UnsupportedField(
            "Local models make no audio, so a message cannot refer to earlier audio; leave `audio` "
            "out.",
            param=f"{where}.audio",
        )
    flat = {**message, "content": _content(message.get("content"), f"{where}.content")}
    if message["role"] == "developer":
        flat["role"] = "system"  # templates know only the older name of `developer`
    if message["role"] == "function":
        flat |= {"role": "tool", "tool_call_id": _CALL}
    if call := flat.pop("function_call", None):
        flat["tool_calls"] = [{"id": _CALL, "type": "function", "function": call}]
    for index, call in enumerate(flat.get("tool_calls") or ()):
        if call["type"] != "function":
            raise UnsupportedField(
                "Local models know calls of type `function` only.",
                param=f"{where}.tool_calls[{index}].type",
            )
    return flat


def _content(content: Any, where: str) -> Content:
    if content is None or isinstance(content, str):
        return content
    pieces = [_piece(part, f"{where}[{index}]") for index, part in enumerate(content)]
    texts = [piece for piece in pieces if isinstance(piece, str)]
    return "\n".join(texts) if len(texts) == len(pieces) else pieces


def _piece(part: Mapping[str, Any], where: str) -> str | MediaPart:
    """Translates one part. A part translated from another one has its original path in `where`."""
    where = part.get("where", where)
    match part["type"]:
        case "text" | "refusal" as kind:
            return str(part[kind])
        case "image_url":
            image = part["image_url"]
            detail = image.get("detail") or "auto"
            return Image(url=image["url"], detail=detail, param=f"{where}.image_url")
        case "input_audio":
            audio = part["input_audio"]
            return Audio(data=audio["data"], format=audio["format"], param=f"{where}.input_audio")
        case kind:
            raise UnsupportedField(
                f"A part of type `{kind}` cannot be shown to local models.", param=f"{where}.type"
            )
