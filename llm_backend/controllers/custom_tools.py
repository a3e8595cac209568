"""Custom tools, which take a text, as functions of one parameter: what models know. Pure.

The parameter is held to the tool's format while it is written.
"""

from collections.abc import Mapping
from typing import Any

from llm_backend.errors import UnsupportedField

__all__ = ["INPUT", "custom_function"]

Json = dict[str, Any]

INPUT = "input"  # the name of the parameter


def custom_function(grammar: Mapping[str, Any] | None, where: str) -> Json:
    """The `parameters` of the function, and that it is `strict`; `grammar` is the format's, with
    its `syntax` and `definition`, and `where` that is. Raises `UnsupportedField`."""
    text: Json = {"type": "string"}
    if grammar is not None:
        if grammar["syntax"] != "regex":
            raise UnsupportedField(
                f"Local models are held to a `regex`, not to a grammar in `{grammar['syntax']}`.",
                param=f"{where}.syntax",
            )
        text["pattern"] = f"^(?:{grammar['definition']})$"
    parameters = {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return {"parameters": parameters, "strict": True}
