"""Parsers and grammars of model output: tool calls and reasoning, in each family's markup."""

from llm_backend.backends.local.markup.families import FAMILIES, markup_of
from llm_backend.backends.local.markup.family import Markup, Tools
from llm_backend.backends.local.markup.parser import MarkupParser
from llm_backend.backends.local.markup.parts import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Part,
    Reasoning,
)

__all__ = [
    "FAMILIES",
    "CallArguments",
    "CallBegin",
    "CallEnd",
    "Content",
    "Markup",
    "MarkupParser",
    "Part",
    "Reasoning",
    "Tools",
    "markup_of",
]
