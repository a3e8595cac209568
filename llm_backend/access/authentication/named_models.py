"""Every model that a body names (pure)."""

from collections.abc import Iterator
from typing import Any

__all__ = ["models_in"]

# What these hold is the client's to fill, or words of a conversation: `model` means nothing there.
_FREE = frozenset(
    {
        "arguments",
        "headers",
        "input_schema",
        "item",
        "item_schema",
        "messages",
        "metadata",
        "parameters",
        "properties",
        "sample",
        "schema",
        "state_variables",
        "variables",
    }
)


def models_in(body: Any) -> Iterator[str]:  # Any: parsed JSON
    """The names under `model`, however deep, those further up first: of the request itself, a
    session and its transcription, graders within graders, a data source, a tool that makes images.
    """
    level = [body]
    while level:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key, inner in one.items():
                    if isinstance(inner, str):
                        # There are servers that read a key in capitals, too.
                        if key.lower() == "model":
                            yield inner
                    elif key not in _FREE:
                        below.append(inner)
            elif isinstance(one, list):
                below += one
        level = [one for one in below if isinstance(one, dict | list)]
