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

__all__ = ["ControlTokenGuard"]

_SIGN = "\ufdd0"  # a noncharacter: text that people exchange has no such thing
_STRETCH = 64 * 1024  # characters searched in one call: other threads run between two
_END = ""  # in a tree: a name ends here

_Tree = dict[str, "_Tree"]
"""What may follow a beginning of names, by the next character."""


class ControlTokenGuard:
    """Guards against these tokens, by their names."""

    def __init__(self, tokens: Iterable[str]) -> None:
        names = {name for name in tokens if len(name) > 1}
        self._longest = max(map(len, names), default=0)
        self._begins = re.compile(f"(?={_any_of(names)}).", re.DOTALL) if names else None

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
        """With a sign behind the first character of every look-alike, however they overlap."""
        if self._begins is None:
            return text
        pieces, done = [], 0
        for start in range(0, len(text), _STRETCH):
            # what begins in this stretch may end in the next
            for found in self._begins.finditer(text, start, start + _STRETCH + self._longest):
                if found.start() < start + _STRETCH:
                    pieces += [text[done : found.end()], _SIGN]
                    done = found.end()
        return "".join([*pieces, text[done:]]) if pieces else text


def _any_of(names: Iterable[str]) -> str:
    """An expression for whichever of these names stands at a place. Some models have thousands that
    begin alike: as a tree of their characters each is looked at once."""
    tree: _Tree = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[_END] = {}
    return _expression(tree)


def _expression(tree: "_Tree") -> str:
    if _END in tree:
        return ""
    branches = [re.escape(character) + _expression(below) for character, below in tree.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
