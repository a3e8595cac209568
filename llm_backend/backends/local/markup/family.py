"""Markup of a model family: frozen descriptions of tool calls and reasoning (see `families`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from llm_backend.backends.local.markup.reader import MarkupReader, Steps
from llm_backend.json_types import JsonMapping

Tools = Mapping[str, JsonMapping]
"""Parameter schemas of the functions that may be called, by name."""

CallParser = Callable[[MarkupReader, str, Tools], Steps[None]]
"""Parser of calls after their opening; raises `NoCall` if the text is not a call."""


class ArgumentStyle(Enum):
    """Notation of a call's arguments."""

    JSON = "json"
    PARAMETER_TAGS = "parameter tags"
    KEY_VALUE_TAGS = "key and value tags"
    KEYWORDS = "keywords"
    GEMMA = "gemma"


@dataclass(frozen=True, kw_only=True)
class CallNotation:
    """Notation of calls in grammars. `begin` and `end` enclose all calls; `between` separates two
    (None: only one call is possible). `call` has the placeholders `{name}`, `{arguments}` and
    optionally `{number}`. `quote` encloses Gemma's strings.
    """

    begin: str = ""
    call: str
    between: str | None
    end: str = ""
    arguments: ArgumentStyle = ArgumentStyle.JSON
    quote: str = ""


@dataclass(frozen=True, kw_only=True)
class CallMarkup:
    """Markup of calls.

    `openings` begin calls within text; the first is the family's own, the others are common errors
    of its models. `is_bare`: calls may begin the answer without a mark. `is_leading`: an answer
    that does not begin with calls has none. `markers` are all marks that may be single tokens.
    """

    openings: tuple[str, ...] = ()
    is_bare: bool = False
    is_leading: bool = False
    markers: tuple[str, ...] = ()
    parser: CallParser
    notation: CallNotation


Attempt = Callable[[CallParser, str], Steps[None]]
"""Parser of calls after their opening, which treats invalid ones as text."""

Messages = Callable[[MarkupReader, Attempt, Tools], Steps[None]]
"""Parser of an answer that consists of several messages, each with a header."""


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """Marks around reasoning, which precedes the answer. Templates of such models contain
    `signature`. `answer` are marks around the answer, if there are any."""

    opening: str
    closing: str
    signature: str
    answer: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Markup:
    """Complete markup of a model. `messages` parses answers whose messages separate reasoning."""

    calls: CallMarkup | None = None
    thinking: Thinking | None = None
    messages: Messages | None = None

    @property
    def markers(self) -> tuple[str, ...]:
        """All marks that may be single tokens."""
        return self.markers_for(True)

    @property
    def has_reasoning(self) -> bool:
        """True if the model's output has reasoning."""
        return self.thinking is not None or self.messages is not None

    @property
    def is_bare(self) -> bool:
        """True if calls have no mark, so that they begin like an answer in JSON."""
        return self.calls is not None and self.calls.is_bare

    def markers_for(self, has_tools: bool) -> tuple[str, ...]:
        """Returns the marks to recognise in an answer with or without tools."""
        thinking = (self.thinking.opening, self.thinking.closing) if self.thinking else ()
        calls = self.calls.markers if self.calls and (has_tools or self.messages) else ()
        return (*calls, *thinking)

    def opens_reasoning(self, prompt: str) -> bool:
        """Returns True if the prompt ends with the opening of reasoning."""
        return self.thinking is not None and prompt.rstrip().endswith(self.thinking.opening)

    def without_variants(self, *, is_leading: bool = False) -> "Markup":
        """Returns the markup for output constrained by a grammar: only the family's own opening;
        with `is_leading`, calls only at the beginning."""
        if self.calls is None:
            return self
        openings = self.calls.openings[:1]
        return replace(self, calls=replace(self.calls, openings=openings, is_leading=is_leading))
