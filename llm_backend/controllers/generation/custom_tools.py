"""Custom tools, which take a text, as functions of one parameter: what models know. Pure.

The parameter is held to the tool's format while it is written: to a `pattern` where it is JSON, to
a grammar in Lark where it is written as it is.
"""

import re
from collections.abc import Mapping
from typing import Any

from llm_backend.backends.local.markup.lark import LARK, LarkError, check_lark
from llm_backend.errors import InvalidRequest

__all__ = ["INPUT", "custom_function"]

Json = dict[str, Any]

INPUT = "input"  # the name of the parameter
_SPECIAL = re.compile(r"\\.|[/\n]", re.DOTALL)  # of what stands between slashes


def custom_function(grammar: Mapping[str, Any] | None, where: str) -> Json:
    """The `parameters` of the function, and that it is `strict`; `grammar` is the format's, with
    its `syntax` and `definition`, and `where` that is. Raises `InvalidRequest`."""
    text: Json = {"type": "string"}
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
