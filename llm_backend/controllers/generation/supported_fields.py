"""Refusal of request fields that this server does not support, by name (pure).

Built on it are `check_supported_fields` of chats and other generation requests,
`check_response_fields` of responses, and `check_ollama_fields` of Ollama's API. Fields that the
document does not define are found by `contract/unknown_fields.py`.
"""

from collections.abc import Callable, Collection
from typing import Any

from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonMapping


def refuse_unsupported_fields(
    body: JsonMapping,
    supported: Collection[str],
    *,
    is_neutral: Callable[[str, Any], bool],  # Any: JSON values
    by: str = "this server",
) -> None:
    """Raises `UnsupportedField` for the first field that is not supported, unless its value has no
    effect. `by` names what does not support it."""
    for name, value in body.items():
        if name not in supported and not is_neutral(name, value):
            raise UnsupportedField(f"`{name}` is not supported by {by}; leave it out.", param=name)


def local_model(body: JsonMapping) -> str:
    """Returns the name of the model that a body asks for, for the message; a body may leave it to
    the server."""
    name = body.get("model")
    return "the local model" if name is None else f"the local model `{name}`"
