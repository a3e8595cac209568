"""The input of a custom tool's call, read out of the JSON in which it is written, as it comes."""

import json
import re
from collections.abc import Iterator

from llm_backend.controllers.generation.custom_tools import INPUT

__all__ = ["CustomInput"]

_BEGIN = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_PLAIN = re.compile(r'[^"\\]+')
_HALF = r"u[dD][89abAB][0-9a-fA-F]{2}"  # of a pair of escapes that make one character
_ESCAPE = re.compile(rf'\\(?:{_HALF}\\u[dD][c-fC-F][0-9a-fA-F]{{2}}|u[0-9a-fA-F]{{4}}|["\\/bfnrt])')
_CUT = re.compile(rf"\\(?:u[0-9a-fA-F]{{0,3}}|{_HALF}(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?)?\Z")
_BACKSLASH = re.compile(r"\\")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NO_CHARACTER = "\ufffd"


class CustomInput:
    """Takes the arguments in pieces; gives the text in them.

    A model that nothing holds to JSON also writes what is none: a backslash that begins no escape,
    as in a pattern, stands for itself.
    """

    def __init__(self) -> None:
        self._rest = ""  # has not been read yet
        self._has_begun = False
        self._has_ended = False

    def feed(self, piece: str) -> str:
        """What this piece adds to the text."""
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
        """What is left once there are no more pieces: all of it, where it is not as expected."""
        return "" if self._has_begun else self._rest

    def _read(self) -> Iterator[str]:
        given, place = self._rest, 0
        while (found := _next(given, place)) is not None:
            yield _text(found[0])
            place = found.end()
        self._has_ended = given.startswith('"', place)
        self._rest = given[place:]


def _next(given: str, place: int) -> re.Match[str] | None:
    """What stands at this place; None at either end, and for an escape that may still go on."""
    if plain := _PLAIN.match(given, place):
        return plain
    if _CUT.match(given, place):
        return None
    return _ESCAPE.match(given, place) or _BACKSLASH.match(given, place)


def _text(found: str) -> str:
    """What an escape stands for; half of a pair, of which nobody has the other, for no character.
    All else stands for itself."""
    if len(found) < 2 or found[0] != "\\":
        return found
    return _SURROGATE.sub(_NO_CHARACTER, str(json.loads(f'"{found}"')))
