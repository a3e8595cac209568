"""Refusal of request fields that this server does not support, by name (pure).

`check_supported_fields` of chats and other generation requests, `check_response_fields` of
responses, and `check_ollama_fields` of Ollama's API are built on it. Fields that the document does
not define are found by `contract/unknown_fields.py`.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonMapping

_VERBOSE = re.compile(r"(?:openai/)?gpt-[5-9]")
_REASONING = re.compile(r"(?:openai/)?(?:gpt-[5-9]|o[1-9]|codex-)")


def refuse_unsupported_fields(
    body: JsonMapping,
    supported: Collection[str],
    *,
    neutral: Mapping[str, Collection[Any]] = {},  # Any: JSON values
    is_neutral: Callable[[str, Any], bool] = lambda _, __: False,
    by: str = "this server",
    path: str = "",
) -> None:
    """Raises `UnsupportedField` for the first field that is not supported, unless its value has no
    effect: it is null, among the `neutral` values of the field, or `is_neutral`. `by` names what
    does not support the field; `path` is that of `body` in the request's body."""
    for name, value in body.items():
        if name in supported or value is None or value in neutral.get(name, ()):
            continue
        if not is_neutral(name, value):
            param = f"{path}.{name}" if path else name
            raise UnsupportedField(
                f"`{param}` is not supported by {by}; leave it out.", param=param
            )


def describe_model(body: JsonMapping) -> str:
    """Returns a phrase that names the requested model, for error messages; a body may name none."""
    name = body.get("model")
    return "the local model" if name is None else f"the local model `{name}`"


def is_hint(name: str, value: Any, model: str) -> bool:
    """True if a field with this value is a hint. Hints are the retention of the prompt cache,
    whose entries stay until they are evicted, and verbosity, if OpenAI's model of this name
    supports it.

    A hint is accepted although it changes no answer of a local model. A local model may be served
    under a name of OpenAI's, and clients then send the fields that OpenAI's model supports.
    """
    if name == "prompt_cache_options":
        return value.get("mode") in (None, "implicit")
    if name == "verbosity":
        return _VERBOSE.match(model) is not None
    return name == "prompt_cache_retention"


def knows_reasoning_effort(model: str) -> bool:
    """True if OpenAI's model of this name supports `reasoning_effort`."""
    return _REASONING.match(model) is not None
