"""Finds every model that a JSON body names (pure)."""

from collections.abc import Iterator
from typing import Any

# Values under these names are free content of the client: a `model` in them names no model.
_FREE = frozenset(
    {
        "arguments",
        "chat_template_kwargs",
        "headers",
        "input_examples",
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


def find_named_models(body: Any) -> Iterator[str]:  # Any: parsed JSON
    """Yields the strings under `model` at any depth, outermost first: of the request, a session
    and its transcription, nested graders, a data source, a tool that makes images.
    """
    level = [body]
    while level:
        below: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                for key, inner in one.items():
                    if isinstance(inner, str):
                        # Some upstreams read names of fields without regard to case.
                        if key.lower() == "model":
                            yield inner
                    elif key not in _FREE:
                        below.append(inner)
            elif isinstance(one, list):
                below += one
        level = [one for one in below if isinstance(one, dict | list)]
