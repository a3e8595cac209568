"""What a model's text turns out to be, piece by piece: frozen values."""

from dataclasses import dataclass

__all__ = ["CallArguments", "CallBegin", "CallEnd", "Content", "Part", "Reasoning"]


@dataclass(frozen=True)
class Content:
    """A piece of the answer itself."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thought before it answered."""

    text: str


@dataclass(frozen=True)
class CallBegin:
    """A call of this function; its arguments follow."""

    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the running call's arguments; all of them together are one JSON object."""

    text: str


@dataclass(frozen=True)
class CallEnd:
    """The running call is whole."""


Part = Content | Reasoning | CallBegin | CallArguments | CallEnd
