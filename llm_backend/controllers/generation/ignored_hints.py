"""Fields that change no answer of a local model, and are taken all the same: hints. Pure.

A local model may be served under a name of OpenAI's; clients then send what the model of that name
knows.
"""

import re
from typing import Any

__all__ = ["is_hint", "knows_reasoning_effort"]

_VERBOSE = re.compile(r"(?:openai/)?gpt-[5-9]")
_REASONING = re.compile(r"(?:openai/)?(?:gpt-[5-9]|o[1-9]|codex-)")


def is_hint(name: str, value: Any, model: str) -> bool:
    """Whether a field with this value is one: how long prompts are cached, as they stay until room
    is needed; and how much is said, of a model under the name of one that knows `verbosity`."""
    if name == "prompt_cache_options":
        return value.get("mode") in (None, "implicit")
    if name == "verbosity":
        return _VERBOSE.match(model) is not None
    return name == "prompt_cache_retention"


def knows_reasoning_effort(model: str) -> bool:
    """Whether OpenAI's model of this name takes `reasoning_effort`."""
    return _REASONING.match(model) is not None
