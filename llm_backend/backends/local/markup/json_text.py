"""JSON that is still being written: what is certain of it, and how it would be closed. Pure."""

import json
import re

__all__ = ["JsonText", "whole_json"]

_DEPTH = 64  # nesting beyond this is no call that anybody would make
_SCALAR_LENGTH = 400  # characters of a number; the longest double has some 340
_SPACE = " \t\r\n"
_OPEN = {"{": "}", "[": "]"}
_ESCAPED = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"
_SCALAR = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)
_SCALAR_CHARACTER = re.compile(r"[-+.0-9A-Za-z]", re.ASCII)
_PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]+')  # what means nothing but itself in a string
_FOREIGN = {"True": "true", "False": "false", "None": "null"}  # models slip into Python


class JsonText:
    """One JSON value, a character at a time.

    `take` says whether the character can go on the value and takes it if so. `drain` gives what has
    become certain: always a beginning of valid JSON that `closing` would complete, so a comma waits
    for what follows it and an escape or a number for its end. Line breaks inside of strings, which
    JSON forbids and models write, come out escaped.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._state = "value"
        self._is_key = False
        self._certain: list[str] = []
        self._held = ""  # taken, but not certain yet
        self._scalar = ""  # the end of `held` that is a number or a word
        self._surrogate_is_due = False

    @property
    def is_complete(self) -> bool:
        """Whether the value has come to its end."""
        return self._state == "done"

    @property
    def held(self) -> str:
        """What was taken and is not certain."""
        return self._held

    def drain(self) -> str:
        """What has become certain since the last time."""
        certain, self._certain = "".join(self._certain), []
        return certain

    def take(self, char: str) -> bool:
        """Take the next character; False if no JSON goes on with it."""
        if self._state == "scalar":
            if _SCALAR_CHARACTER.match(char) and len(self._scalar) < _SCALAR_LENGTH:
                self._held += char
                self._scalar += char
                return True
            if not self._end_scalar():
                return False
        if self._state in ("string", "escape", "hex"):
            return self._take_in_string(char)
        if self._state == "done":
            return False
        if char in _SPACE:
            self._held += char
            return True
        return self._take_structure(char)

    def closing(self) -> str:
        """What makes valid JSON of what is certain."""
        text = ""
        if self._state in ("string", "escape", "hex"):
            text = '"' + (":null" if self._is_key else "")
        elif self._state == "colon":
            text = ":null"
        elif self._state in ("value", "scalar") and (not self._stack or self._stack[-1] == "{"):
            text = "null"
        return text + "".join(_OPEN[bracket] for bracket in reversed(self._stack))

    def take_run(self, text: str, start: int) -> int:
        """Take what stands in `text` from `start` on as far as it only goes on with a string; gives
        where that ends, 0 if there is nothing of the kind."""
        if self._state != "string" or self._held:
            return 0
        run = _PLAIN.match(text, start)
        if run is None:
            return 0
        self._certain.append(run[0])
        return run.end()

    def end_scalar(self) -> None:
        """Nothing more comes: a number or a word that may end here has ended."""
        if self._state == "scalar":
            self._end_scalar()

    def _take_structure(self, char: str) -> bool:
        state = self._state
        if state in ("value", "value or end") and self._begin_value(char):
            return True
        if state in ("key", "key or end") and char == '"':
            self._is_key = True
            return self._sure(char, "string")
        if state == "colon" and char == ":":
            return self._sure(char, "value")
        if state == "next" and char == ",":
            self._held += char
            self._state = "key" if self._stack[-1] == "{" else "value"
            return True
        if state in ("next", "value or end", "key or end") and char == _OPEN[self._stack[-1]]:
            self._stack.pop()
            return self._sure(char, self._after_value())
        return False

    def _begin_value(self, char: str) -> bool:
        if char in _OPEN and len(self._stack) < _DEPTH:
            self._stack.append(char)
            return self._sure(char, "key or end" if char == "{" else "value or end")
        if char == '"':
            self._is_key = False
            return self._sure(char, "string")
        if _SCALAR_CHARACTER.match(char):
            self._state, self._scalar = "scalar", char
            self._held += char
            return True
        return False

    def _end_scalar(self) -> bool:
        word = _FOREIGN.get(self._scalar, self._scalar)
        if not _SCALAR.fullmatch(word):
            return False
        self._held = self._held.removesuffix(self._scalar) + word
        return self._sure("", self._after_value())

    def _take_in_string(self, char: str) -> bool:
        if self._state == "escape":
            return self._take_escaped(char)
        if self._state == "hex":
            return self._take_hex(char)
        if char == "\\":
            self._state = "escape"
            self._held += char
            return True
        if self._surrogate_is_due or "\ud800" <= char <= "\udfff":
            return False
        if char == '"':
            return self._sure(char, "colon" if self._is_key else self._after_value())
        return self._sure(json.dumps(char)[1:-1] if char < " " else char, "string")

    def _take_escaped(self, char: str) -> bool:
        if char == "u":
            self._state = "hex"
            self._held += char
            return True
        return char in _ESCAPED and not self._surrogate_is_due and self._sure(char, "string")

    def _take_hex(self, char: str) -> bool:
        if char not in _HEX:
            return False
        digits = self._held[self._held.rindex("u") + 1 :] + char
        if len(digits) < 4:
            self._held += char
            return True
        is_low = 0xDC00 <= int(digits, 16) <= 0xDFFF
        if is_low != self._surrogate_is_due:
            return False
        self._surrogate_is_due = 0xD800 <= int(digits, 16) <= 0xDBFF
        if self._surrogate_is_due:
            self._held += char
            self._state = "string"
            return True
        return self._sure(char, "string")

    def _after_value(self) -> str:
        return "next" if self._stack else "done"

    def _sure(self, char: str, state: str) -> bool:
        self._certain.append(self._held + char)
        self._held, self._scalar, self._state = "", "", state
        return True


def whole_json(text: str) -> str | None:
    """The JSON of a text that is one value and nothing else, else None."""
    value = JsonText()
    if not all(value.take(char) for char in text.strip(_SPACE)):
        return None
    value.end_scalar()
    return value.drain() if value.is_complete else None
