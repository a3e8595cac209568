"""The input of a custom tool's call, read out of the JSON in which it is written, as it comes."""

import json
import re

from llm_backend.controllers.custom_tools import INPUT

__all__ = ["CustomInput"]

_BEGIN = re.compile(rf'\s*\{{\s*"{INPUT}"\s*:\s*"')
_PLAIN = re.compile(r'[^"\\]+')
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}|u[0-9a-fA-F]{4}|[^u])")
_HALF = re.compile(r"\\u[dD][89abAB]")  # of a pair of escapes that make one character


class CustomInput:
    """Takes the arguments in pieces; gives the text in them."""

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

    def _read(self) -> list[str]:
        read: list[str] = []
        while self._rest:
            found = _PLAIN.match(self._rest) or self._escape()
            if found is None:
                self._has_ended = self._rest[0] == '"'
                break
            text, self._rest = found[0], self._rest[found.end() :]
            read.append(json.loads(f'"{text}"', strict=False) if text[0] == "\\" else text)
        return read

    def _escape(self) -> re.Match[str] | None:
        """A whole escape; none while the second half of a pair may still come."""
        is_half = _HALF.match(self._rest) and len(self._rest) < 12
        return None if is_half else _ESCAPE.match(self._rest)
