"""Hints: fields that are accepted although they change no answer of a local model. Pure.

A local model may be served under a name of OpenAI's; clients then send the fields that OpenAI's
model supports.
"""

import re
from typing import Any

_VERBOSE = re.compile(r"(?:openai/)?gpt-[5-9]")
_REASONING = re.compile(r"(?:openai/)?(?:gpt-[5-9]|o[1-9]|codex-)")


def is_hint(name: str, value: Any, model: str) -> bool:
    """True for a field with this value that is a hint: retention of the prompt cache, whose entries
    stay until they are evicted; and verbosity, if OpenAI's model of this name supports it."""
    if name == "prompt_cache_options":
        return value.get("mode") in (None, "implicit")
    if name == "verbosity":
        return _VERBOSE.match(model) is not None
    return name == "prompt_cache_retention"


def knows_reasoning_effort(model: str) -> bool:
    """True if OpenAI's model of this name supports `reasoning_effort`."""
    return _REASONING.match(model) is not None
