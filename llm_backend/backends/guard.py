"""Keeps what people write from being taken for a model's control tokens.

A prompt is a template's marks around people's words, and only the marks may become control tokens:
whoever writes `<|im_end|>` into a message must not end it. Wherever words look like a token, a sign
is put into the look-alike before the template runs. What the template makes of the words, it
carries the sign along; then the signs are taken out, and the engine is told where they were, so
that it reads no token across these places.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Guard"]

_SIGN = "\ufdd0"  # a noncharacter: text that people exchange has no such thing


class Guard:
    """Guards against these tokens, by their names."""

    def __init__(self, tokens: Iterable[str]) -> None:
        names = sorted({name for name in tokens if len(name) > 1}, key=len, reverse=True)
        firsts = re.escape("".join({name[0] for name in names}))  # most text has none of them
        any_name = "|".join(map(re.escape, names))
        self._look_alike = re.compile(f"(?=[{firsts}])(?:{any_name})") if names else None

    def signed(self, value: Any) -> Any:
        """The value with a sign in every look-alike, in whatever text it holds."""
        if isinstance(value, str):
            return self._signed(value)
        if isinstance(value, Mapping):
            return {self.signed(name): self.signed(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.signed(one) for one in value]
        return value

    def lifted(self, prompt: str) -> tuple[str, list[int]]:
        """The prompt without its signs, and the places at which they were."""
        *pieces, last = prompt.split(_SIGN)
        places: list[int] = []
        for piece in pieces:
            places.append(len(piece) + (places[-1] if places else 0))
        return "".join(pieces) + last, places

    def _signed(self, text: str) -> str:
        if self._look_alike is None:
            return text
        return self._look_alike.sub(self._split, text)

    def _split(self, found: re.Match[str]) -> str:
        name = found[0]
        return name[0] + _SIGN + self._signed(name[1:])
