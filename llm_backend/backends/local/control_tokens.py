"""Control token guard: escapes control tokens in user text, against prompt injection.

A prompt is a template's marks around user text, and only the marks may become control tokens: a
message that contains `<|im_end|>` must not end there. Before the template runs, a noncharacter
(marker) is inserted into each part of user text that equals a control token. The template copies
the markers along with the text. Then they are removed, and their positions are passed to the engine
as cuts, which no token may span.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NONCHARACTER = "\ufdd0"  # which Unicode excludes from text interchange
_CHUNK = 64 * 1024  # characters per regex call: other threads can run between two calls
_END = ""  # key in a trie: a name ends here

_Trie = dict[str, "_Trie"]
"""Trie of token names: subtrees by the next character."""


class ControlTokenGuard:
    """Escapes these control tokens, given by their names."""

    def __init__(self, tokens: Iterable[str]) -> None:
        names = {name for name in tokens if len(name) > 1}
        self._longest = max(map(len, names), default=0)
        self._begins = re.compile(f"(?={_regex_of(names)}).", re.DOTALL) if names else None

    def escape(self, value: Any) -> Any:
        """Returns the value with a marker in every control token in its strings, nested ones
        too."""
        if isinstance(value, str):
            return self._escape_text(value)
        if isinstance(value, Mapping):
            return {self.escape(name): self.escape(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.escape(one) for one in value]
        return value

    def unescape(self, prompt: str) -> tuple[str, list[int]]:
        """Returns the prompt without its markers, and the positions at which they were."""
        chunks: list[str] = []
        positions: list[int] = []
        done = 0
        for start in range(0, len(prompt), _CHUNK):
            *pieces, last = prompt[start : start + _CHUNK].split(_NONCHARACTER)
            for piece in pieces:
                done += len(piece)
                positions.append(done)
            done += len(last)
            chunks.append("".join([*pieces, last]))
        return "".join(chunks), positions

    def _escape_text(self, text: str) -> str:
        """Inserts a marker after the first character of every control token, overlapping ones
        too."""
        if self._begins is None:
            return text
        chunks, done = [], 0
        for start in range(0, len(text), _CHUNK):
            pieces = []
            # A token that begins in this chunk may end in the next one.
            for found in self._begins.finditer(text, start, start + _CHUNK + self._longest):
                if found.start() < start + _CHUNK:
                    pieces += [text[done : found.end()], _NONCHARACTER]
                    done = found.end()
            chunks.append("".join(pieces))
        return "".join([*chunks, text[done:]]) if done else text


def _regex_of(names: Iterable[str]) -> str:
    """Returns a regular expression that matches any of these names. It is a trie, because some
    models have thousands of names with a common prefix."""
    tree: _Trie = {}
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[_END] = {}
    return _expression(tree)


def _expression(tree: "_Trie") -> str:
    if _END in tree:
        return ""
    branches = [re.escape(character) + _expression(subtree) for character, subtree in tree.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
