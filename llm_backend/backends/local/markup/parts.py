"""Parts of a parsed answer: content, reasoning and tool calls, as frozen values."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """Chunk of the answer's content."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """Chunk of the reasoning before the answer."""

    text: str


@dataclass(frozen=True)
class CallBegin:
    """Begin of a call of this function; its arguments follow."""

    name: str


@dataclass(frozen=True)
class CallArguments:
    """Chunk of the current call's arguments; all chunks together are one JSON object."""

    text: str


@dataclass(frozen=True)
class CallEnd:
    """End of the current call."""


Part = Content | Reasoning | CallBegin | CallArguments | CallEnd
