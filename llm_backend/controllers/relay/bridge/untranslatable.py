"""Refusal of fields that a bridge cannot translate, by name (pure)."""

from collections.abc import Collection, Mapping
from typing import Any

from llm_backend.errors import UnsupportedField

_DEFAULTS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "background": (False,),
    "truncation": ("disabled",),
    "modalities": (["text"],),
}
"""Values that ask for the default behaviour."""
_ABOUT_THE_CLIENT = "client_metadata"  # no other API has it


def check_translatable(body: Mapping[str, Any], translated: Collection[str], *, other: str) -> None:
    """Raises `UnsupportedField` for a field that has an effect and is not translated."""
    for name, value in body.items():
        is_default = value is None or value in _DEFAULTS.get(name, ())
        if name in translated or name == _ABOUT_THE_CLIENT or is_default:
            continue
        raise UnsupportedField(
            f"`{name}` is not supported by the model `{body['model']}`, which is reached through "
            f"{other}; leave it out.",
            param=name,
        )
