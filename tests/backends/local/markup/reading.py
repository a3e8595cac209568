"""Parses texts as the backend does, and merges the parts."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llm_backend.backends.local.markup import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Markup,
    MarkupParser,
    Part,
    Reasoning,
)
from tests.backends.local.markup.samples import TOOLS


@dataclass
class ParsedAnswer:
    """Parsed answer."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    complete_calls: int = 0

    def parsed(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.calls]


def parse_answer(
    pieces: Iterable[str],
    markup: Markup,
    *,
    is_cut: bool = False,
    is_stopped: bool = False,
    **options: Any,
) -> ParsedAnswer:
    parser = MarkupParser(markup, options.pop("tools", TOOLS), **options)
    parts = [part for piece in pieces for part in parser.feed(piece)]
    return folded([*parts, *parser.finish(is_cut=is_cut, is_stopped=is_stopped)])


def folded(parts: Iterable[Part]) -> ParsedAnswer:
    made = ParsedAnswer()
    for part in parts:
        match part:
            case Content(text):
                made.content += text
            case Reasoning(text):
                made.reasoning += text
            case CallBegin(name):
                made.calls.append((name, ""))
            case CallArguments(text):
                name, arguments = made.calls[-1]
                made.calls[-1] = (name, arguments + text)
            case CallEnd():
                made.complete_calls += 1
    return made
