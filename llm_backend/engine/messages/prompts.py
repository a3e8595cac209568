"""Prompts of images, as native code can take them."""

import re

_PROMPT_CHARACTERS = 4000
_WEIGHT = re.compile(r":([+-]?[.0-9]+)\)")  # of words: `(fog:1.2)`
_LEAST_WEIGHT, _GREATEST_WEIGHT = 1e-6, 1e6


def refuse_prompt(prompt: str) -> str | None:
    """Returns why the native code refuses a prompt: a weight that is not a number ends it, and it
    computes all parts of a long text."""
    if len(prompt) > _PROMPT_CHARACTERS:
        return f"A prompt may have at most {_PROMPT_CHARACTERS:,} characters, not {len(prompt):,}."
    if "\0" in prompt:
        return "A prompt must have no zero bytes."
    wrong = next((one for one in _WEIGHT.findall(prompt) if not _is_weight(one)), None)
    return None if wrong is None else f"`{wrong[:20]}` is not a weight of words in a prompt."


def _is_weight(text: str) -> bool:
    try:
        value = abs(float(text))
    except ValueError:
        return False
    return value == 0 or _LEAST_WEIGHT <= value <= _GREATEST_WEIGHT
