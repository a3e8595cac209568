"""Message content in the forms of chat completions and of responses (pure)."""

from typing import Any

from llm_backend.backends.local.media import Audio, Content, Image, MediaPart
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonObject


def chat_content(content: Content) -> Any:
    """Returns the content of a chat's message."""
    if content is None or isinstance(content, str):
        return content
    return [_chat_part(piece) for piece in content]


def response_content(content: Content) -> Any:
    """Returns the content of a response's item. Raises `UnsupportedField` for audio."""
    if content is None or isinstance(content, str):
        return content
    return [_response_part(piece) for piece in content]


def _chat_part(piece: str | MediaPart) -> JsonObject:
    if isinstance(piece, str):
        return {"type": "text", "text": piece}
    if isinstance(piece, Image):
        # Chats have no higher value of `detail` than `high`.
        detail = "high" if piece.detail == "original" else piece.detail
        return {"type": "image_url", "image_url": {"url": piece.url, "detail": detail}}
    assert isinstance(piece, Audio), "a message of a client"
    return {"type": "input_audio", "input_audio": {"data": piece.data, "format": piece.format}}


def _response_part(piece: str | MediaPart) -> JsonObject:
    if isinstance(piece, str):
        return {"type": "input_text", "text": piece}
    if isinstance(piece, Image):
        return {"type": "input_image", "image_url": piece.url, "detail": piece.detail}
    raise UnsupportedField("The upstream's API (Responses) supports no audio.", param=piece.param)
