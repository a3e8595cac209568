"""Tool parsers, reasoning parsers and grammars of model output, in each family's markup.

families.py    the markup of each model family as data, and its detection
family.py      the types of these descriptions
parser.py      streaming parser of an answer; parts.py: what it emits
reader.py      the cursor that parsers read with
json_calls.py, named_calls.py, tag_calls.py, literal_calls.py, harmony.py  notations of calls
json_text.py   incremental JSON; python_strings.py: that of Python's strings
grammar.py     grammars that constrain answers to calls or content
parameters.py  parameter schemas of functions
lark.py        validation of clients' Lark grammars
"""

from llm_backend.backends.local.markup.families import FAMILIES, markup_of
from llm_backend.backends.local.markup.family import Markup
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
    "markup_of",
]
