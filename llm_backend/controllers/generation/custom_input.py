"""Incremental parser that extracts a custom tool's input from its JSON arguments."""

import json
import re
from collections.abc import Iterator

from llm_backend.controllers.generation.custom_tools import INPUT

_BEGIN = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_PLAIN = re.compile(r'[^"\\]+')
_HALF = r"u[dD][89abAB][0-9a-fA-F]{2}"  # high surrogate of a pair of escapes
_ESCAPE = re.compile(rf'\\(?:{_HALF}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|["\\/bfnrt])')
_CUT_ESCAPE = re.compile(rf"\\(?:u[0-9a-fA-F]{{0,3}}|{_HALF}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?)?\Z")
_BACKSLASH = re.compile(r"\\")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


class CustomInput:
    """Takes the arguments in pieces and returns the tool's input in them.

    Without a grammar, models also write invalid JSON: a backslash that begins no valid escape, as
    in a regular expression, is kept as text.
    """

    def __init__(self) -> None:
        self._rest = ""  # not parsed yet
        self._has_begun = False
        self._has_ended = False

    def feed(self, piece: str) -> str:
        """Returns the input that this piece adds."""
        if self._has_ended:
            return ""
        self._rest += piece
        if not self._has_begun:
            begin = _BEGIN.match(self._rest)
            if begin is None:
                return ""
            self._has_begun, self._rest = True, self._rest[begin.end() :]
        return "".join(self._read())

    def finish(self) -> str:
        """Returns the arguments as they are if no input was found in them, else an empty text. An
        empty object has no input: bridges put it in place of missing arguments."""
        return "" if self._has_begun or self._rest.strip() == "{}" else self._rest

    def _read(self) -> Iterator[str]:
        text, offset = self._rest, 0
        while (found := _next(text, offset)) is not None:
            yield _decode(found[0])
            offset = found.end()
        self._has_ended = text.startswith('"', offset)
        self._rest = text[offset:]


def _next(text: str, offset: int) -> re.Match[str] | None:
    """Returns a run of plain text or an escape; None at the closing quote, at the end of the text
    and for an incomplete escape."""
    if plain := _PLAIN.match(text, offset):
        return plain
    if _CUT_ESCAPE.match(text, offset):
        return None
    return _ESCAPE.match(text, offset) or _BACKSLASH.match(text, offset)


def _decode(found: str) -> str:
    """Decodes an escape, an unpaired surrogate as a replacement character; returns plain text
    unchanged."""
    if len(found) < 2 or found[0] != "\\":
        return found
    return _SURROGATE.sub(_REPLACEMENT, str(json.loads(f'"{found}"')))
