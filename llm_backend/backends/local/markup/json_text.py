"""Incremental JSON: the certain part of a partial value, and the text that completes it. Pure."""

import json
import re

_DEPTH = 64  # deeper nesting is rejected
_SCALAR_LENGTH = 400  # characters of a number; the longest double has some 340
SPACE = " \t\r\n"  # between the tokens of JSON
_OPEN = {"{": "}", "[": "]"}
_ESCAPED = '"\\/bfnrt'
_HEX = "0123456789abcdefABCDEF"
_SCALAR = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null", re.ASCII)
_SCALAR_CHARACTER = re.compile(r"[-+.0-9A-Za-z]", re.ASCII)
_PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]+')  # literal characters in a string
_PYTHON_LITERALS = {"True": "true", "False": "false", "None": "null"}


class JsonText:
    """One JSON value, parsed a character at a time.

    `feed` adds a character, or returns False if it cannot continue the value. `drain` returns the
    text that has become certain. All certain text is a prefix of valid JSON, which `completion`
    completes; therefore a comma is pending until the next character, and an escape or a number
    until its end. Line breaks within strings, which JSON forbids and models write, are escaped.
    """

    def __init__(self) -> None:
        self._stack: list[str] = []
        self._state = "value"
        self._is_key = False
        self._certain: list[str] = []
        self._pending = ""  # text that is not certain yet
        self._scalar = ""  # number or word at the end of `_pending`
        self._expects_low_surrogate = False

    @property
    def is_complete(self) -> bool:
        """True if the value is complete."""
        return self._state == "done"

    @property
    def pending(self) -> str:
        """Text that is not certain yet."""
        return self._pending

    def drain(self) -> str:
        """Returns the text that has become certain since the last call."""
        certain, self._certain = "".join(self._certain), []
        return certain

    def feed(self, char: str) -> bool:
        """Adds the next character; returns False if it cannot continue the JSON."""
        if self._state == "scalar":
            if _SCALAR_CHARACTER.match(char) and len(self._scalar) < _SCALAR_LENGTH:
                self._pending += char
                self._scalar += char
                return True
            if not self._end_scalar():
                return False
        if self._state in ("string", "escape", "hex"):
            return self._feed_string(char)
        if self._state == "done":
            return False
        if char in SPACE:
            self._pending += char
            return True
        return self._feed_structure(char)

    def completion(self) -> str:
        """Returns the text that completes the certain text to valid JSON."""
        text = ""
        if self._state in ("string", "escape", "hex"):
            text = '"' + (":null" if self._is_key else "")
        elif self._state == "colon":
            text = ":null"
        elif self._state in ("value", "scalar") and (not self._stack or self._stack[-1] == "{"):
            text = "null"
        return text + "".join(_OPEN[bracket] for bracket in reversed(self._stack))

    def feed_run(self, text: str, start: int) -> int:
        """Adds a run of literal string characters from `text[start:]`; returns its end, or
        0 if there is none."""
        if self._state != "string" or self._pending:
            return 0
        run = _PLAIN.match(text, start)
        if run is None:
            return 0
        self._certain.append(run[0])
        return run.end()

    def end_scalar(self) -> None:
        """Ends a number or a word, at the end of the text."""
        if self._state == "scalar":
            self._end_scalar()

    def _feed_structure(self, char: str) -> bool:
        state = self._state
        if state in ("value", "value or end") and self._begin_value(char):
            return True
        if state in ("key", "key or end") and char == '"':
            self._is_key = True
            return self._commit(char, "string")
        if state == "colon" and char == ":":
            return self._commit(char, "value")
        if state == "next" and char == ",":
            self._pending += char
            self._state = "key" if self._stack[-1] == "{" else "value"
            return True
        if state in ("next", "value or end", "key or end") and char == _OPEN[self._stack[-1]]:
            self._stack.pop()
            return self._commit(char, self._after_value())
        return False

    def _begin_value(self, char: str) -> bool:
        if char in _OPEN and len(self._stack) < _DEPTH:
            self._stack.append(char)
            return self._commit(char, "key or end" if char == "{" else "value or end")
        if char == '"':
            self._is_key = False
            return self._commit(char, "string")
        if _SCALAR_CHARACTER.match(char):
            self._state, self._scalar = "scalar", char
            self._pending += char
            return True
        return False

    def _end_scalar(self) -> bool:
        word = _PYTHON_LITERALS.get(self._scalar, self._scalar)
        if not _SCALAR.fullmatch(word):
            return False
        self._pending = self._pending.removesuffix(self._scalar) + word
        return self._commit("", self._after_value())

    def _feed_string(self, char: str) -> bool:
        if self._state == "escape":
            return self._feed_escape(char)
        if self._state == "hex":
            return self._feed_hex(char)
        if char == "\\":
            self._state = "escape"
            self._pending += char
            return True
        if self._expects_low_surrogate or "\ud800" <= char <= "\udfff":
            return False
        if char == '"':
            return self._commit(char, "colon" if self._is_key else self._after_value())
        return self._commit(json.dumps(char)[1:-1] if char < " " else char, "string")

    def _feed_escape(self, char: str) -> bool:
        if char == "u":
            self._state = "hex"
            self._pending += char
            return True
        return char in _ESCAPED and not self._expects_low_surrogate and self._commit(char, "string")

    def _feed_hex(self, char: str) -> bool:
        if char not in _HEX:
            return False
        digits = self._pending[self._pending.rindex("u") + 1 :] + char
        if len(digits) < 4:
            self._pending += char
            return True
        is_low = 0xDC00 <= int(digits, 16) <= 0xDFFF
        if is_low != self._expects_low_surrogate:
            return False
        self._expects_low_surrogate = 0xD800 <= int(digits, 16) <= 0xDBFF
        if self._expects_low_surrogate:
            self._pending += char
            self._state = "string"
            return True
        return self._commit(char, "string")

    def _after_value(self) -> str:
        return "next" if self._stack else "done"

    def _commit(self, char: str, state: str) -> bool:
        self._certain.append(self._pending + char)
        self._pending, self._scalar, self._state = "", "", state
        return True


def normalize_json(text: str) -> str | None:
    """Returns the JSON of a text that is exactly one value; None otherwise."""
    value = JsonText()
    if not all(value.feed(char) for char in text.strip(SPACE)):
        return None
    value.end_scalar()
    return value.drain() if value.is_complete else None
