"""How a model writes what is not plain text: frozen descriptions, one per family in `families`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from llm_backend.backends.local.markup.reader import MarkupReader, Steps

__all__ = [
    "ArgumentStyle", "Attempt", "Body", "CallMarkup", "Markup", "Messages", "Spelling", "Thinking",
    "Tools",
]  # fmt: skip

Tools = Mapping[str, Mapping[str, Any]]
"""The functions that may be called: their parameters' schemas by name."""

Body = Callable[[MarkupReader, str, Tools], Steps[None]]
"""Reads calls from after their opening on; raises `NoCall` where the text is none."""


class ArgumentStyle(Enum):
    """How a family writes a call's arguments."""

    JSON = "json"
    PARAMETER_TAGS = "parameter tags"
    KEY_VALUE_TAGS = "key and value tags"
    KEYWORDS = "keywords"
    GEMMA = "gemma"


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How a model is made to write calls. `begin` and `end` stand around all of them, `between`
    (None: there can be only one) between two. In `call` stand `{name}`, `{arguments}` and, if need
    be, `{number}`. `quote` stands around Gemma's strings.
    """

    begin: str = ""
    call: str
    between: str | None
    end: str = ""
    arguments: ArgumentStyle = ArgumentStyle.JSON
    quote: str = ""


@dataclass(frozen=True, kw_only=True)
class CallMarkup:
    """How calls are written.

    `openings` lead from text into calls; the first is the family's own, the others are slips that
    its models make. `is_bare`: the answer itself may be calls, without a mark. `is_leading`: an
    answer that does not begin with calls has none. `markers` are all the marks that may be tokens
    of their own.
    """

    openings: tuple[str, ...] = ()
    is_bare: bool = False
    is_leading: bool = False
    markers: tuple[str, ...] = ()
    body: Body
    spelling: Spelling


Attempt = Callable[[Body, str], Steps[None]]
"""Reads calls after their opening; what is none is text."""

Messages = Callable[[MarkupReader, Attempt, Tools], Steps[None]]
"""Reads an answer that consists of several messages, each with a head of its own."""


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How reasoning is set apart from the answer that follows it; `sign` stands in the templates of
    models that do. Some have marks around the answer, too."""

    opening: str
    closing: str
    sign: str
    answer: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Markup:
    """All of a model's markup. Where an answer comes in `messages`, they set reasoning apart."""

    calls: CallMarkup | None = None
    thinking: Thinking | None = None
    messages: Messages | None = None

    @property
    def markers(self) -> tuple[str, ...]:
        """All the marks that may be tokens of their own."""
        return self.markers_for(True)

    @property
    def reasons(self) -> bool:
        """Whether there is reasoning to be set apart."""
        return self.thinking is not None or self.messages is not None

    @property
    def is_bare(self) -> bool:
        """Whether calls and an answer in JSON begin alike."""
        return self.calls is not None and self.calls.is_bare

    def markers_for(self, has_tools: bool) -> tuple[str, ...]:
        """The marks that matter in an answer with or without tools."""
        thinking = (self.thinking.opening, self.thinking.closing) if self.thinking else ()
        calls = self.calls.markers if self.calls and (has_tools or self.messages) else ()
        return (*calls, *thinking)

    def is_open_in(self, prompt: str) -> bool:
        """Whether the prompt ends within the reasoning, so that the answer begins there."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.opening)

    def without_slips(self, *, is_leading: bool = False) -> "Markup":
        """The same where a grammar holds the model to the family's own spelling, and maybe to
        calling at once or not at all."""
        if self.calls is None:
            return self
        openings = self.calls.openings[:1]
        return replace(self, calls=replace(self.calls, openings=openings, is_leading=is_leading))
