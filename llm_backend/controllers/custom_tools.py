"""Custom tools, which take a text, as functions of one parameter: what models know. Pure.

The parameter is held to the tool's format while it is written.
"""

from collections.abc import Mapping
from typing import Any

from llm_backend.backends.markup.lark import LARK, LarkError, check_lark
from llm_backend.errors import InvalidRequest

__all__ = ["INPUT", "custom_function"]

Json = dict[str, Any]

INPUT = "input"  # the name of the parameter


def custom_function(grammar: Mapping[str, Any] | None, where: str) -> Json:
    """The `parameters` of the function, and that it is `strict`; `grammar` is the format's, with
    its `syntax` and `definition`, and `where` that is. Raises `InvalidRequest`."""
    text: Json = {"type": "string"}
    if grammar is not None and grammar["syntax"] == "regex":
        text["pattern"] = f"^(?:{grammar['definition']})$"
    elif grammar is not None:
        text[LARK] = _checked(grammar["definition"], where)
    parameters = {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return {"parameters": parameters, "strict": True}


def _checked(definition: str, where: str) -> str:
    try:
        check_lark(definition)
    except LarkError as error:
        raise InvalidRequest(str(error), param=f"{where}.definition") from error
    return definition
