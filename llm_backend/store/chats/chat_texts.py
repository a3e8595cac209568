"""Texts of a chat: those that a search reads, and its title."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_backend.json_types import JsonMapping

_TITLE_CHARACTERS = 80


def texts_of(
    metadata: Mapping[str, str], messages: Sequence[JsonMapping], response: JsonMapping
) -> list[str]:
    """The title, then the texts of the chat, the latest first; system prompts last."""
    latest_first = [*_answers(response), *reversed(messages)]
    ordered = sorted(latest_first, key=lambda message: message.get("role") in _INSTRUCTIONS)
    texts = [text for message in ordered for text in _texts(message.get("content"))]
    return [metadata["title"], *texts] if metadata.get("title") else texts


def title_of(
    metadata: Mapping[str, str], messages: Sequence[JsonMapping], response: JsonMapping
) -> str:
    """The title in the metadata, or else the first line of the first question or of the answer."""
    if metadata.get("title"):
        return metadata["title"]
    questions = [message for message in messages if message.get("role") == "user"]
    for message in (*questions, *_answers(response)):
        for text in _texts(message.get("content")):
            if text.strip():
                return text.strip().split("\n")[0][:_TITLE_CHARACTERS]
    return ""


_INSTRUCTIONS = ("system", "developer")


def _answers(response: JsonMapping) -> Iterator[JsonMapping]:
    for choice in response.get("choices") or ():
        if isinstance(choice.get("message"), Mapping):
            yield choice["message"]


def _texts(content: Any) -> Iterator[str]:  # a text, parts, or an upstream's own value
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else None
            if isinstance(text, str):
                yield text
