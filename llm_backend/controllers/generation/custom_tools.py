"""Custom tools, which take a text, as functions with one parameter. Pure.

The tool's format constrains the parameter during generation: a `pattern` if it is written as JSON,
a Lark grammar if it is written as plain text.
"""

import re
from collections.abc import Mapping
from typing import Any

from llm_backend.backends.local.markup.lark import LARK, LarkError, check_lark
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

INPUT = "input"  # name of the parameter
_SPECIAL = re.compile(r"\\.|[/\n]", re.DOTALL)  # escapes, slashes and newlines of a Lark regex


def custom_function(grammar: Mapping[str, Any] | None, where: str) -> JsonObject:
    """Returns `parameters` and `strict` of the function; `grammar` is the format's, with its
    `syntax` and `definition`, and `where` its path. Raises `InvalidRequest`."""
    text: JsonObject = {"type": "string"}
    if grammar is not None and grammar["syntax"] == "regex":
        text["pattern"] = f"^(?:{grammar['definition']})$"
        text[LARK] = f"start: /(?:{_SPECIAL.sub(_in_slashes, grammar['definition'])})/"
    elif grammar is not None:
        text[LARK] = _check_pattern(grammar["definition"], where)
    parameters = {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return {"parameters": parameters, "strict": True}


def _in_slashes(found: re.Match[str]) -> str:
    return {"/": r"\/", "\n": r"\n"}.get(found[0], found[0])


def _check_pattern(definition: str, where: str) -> str:
    try:
        check_lark(definition)
    except LarkError as error:
        raise InvalidRequest(str(error), param=f"{where}.definition") from error
    return definition
