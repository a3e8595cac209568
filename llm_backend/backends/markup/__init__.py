"""What models write that is not plain text: calls and reasoning, in every family's markup."""

from llm_backend.backends.markup.families import FAMILIES, markup_of
from llm_backend.backends.markup.family import Markup, Tools
from llm_backend.backends.markup.parser import MarkupParser
from llm_backend.backends.markup.parts import (
    Arguments,
    CallBegin,
    CallEnd,
    Content,
    Part,
    Reasoning,
)

__all__ = [
    "FAMILIES",
    "Arguments",
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
