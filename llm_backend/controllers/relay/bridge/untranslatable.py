"""What a request says that the other operation has no word for is refused by its name (pure)."""

from collections.abc import Collection, Mapping
from typing import Any

from llm_backend.errors import UnsupportedField

__all__ = ["refuse_uncarried"]

_IDLE: Mapping[str, tuple[Any, ...]] = {
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
"""Values that ask for what happens anyway."""


def refuse_uncarried(body: Mapping[str, Any], carried: Collection[str], *, other: str) -> None:
    """Raises `UnsupportedField` for a field that asks for something and is not carried over."""
    for name, value in body.items():
        if name in carried or value is None or value in _IDLE.get(name, ()):
            continue
        raise UnsupportedField(
            f"`{name}` is not supported by the model `{body['model']}`, which is asked by {other}; "
            "leave it out.",
            param=name,
        )
