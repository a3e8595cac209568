"""Validation of Lark grammars that clients give for a call's text parameter. Pure."""

import re

LARK = "x-lark"
"""Schema keyword of a text parameter with such a grammar."""

_PARTS = re.compile(
    r"""(?://|\#)[^\n]*                                # comments, texts and expressions
    |   "(?:\\.|[^"\\\n])*+"
    |   /(?:\\.|[^/\\\n])++/
    |   (?P<command>%[a-z]+)
    |   (?P<foreign><[^<>\s][^<>\n]*>|@\w+)
    |   (?P<brace>[{}])
    |   \\.                                         # else `\"` could begin a string
    """,
    re.VERBOSE,
)
_COMMANDS = {"%ignore", "%import"}
_START = re.compile(r"^[^\S\n]*start\b", re.MULTILINE)


class LarkError(ValueError):
    """Invalid or unsupported grammar; the message is a sentence."""


def check_lark(grammar: str) -> None:
    """Raises `LarkError` for directives that reach outside the grammar, or for text that is no
    grammar. Other errors are found when it is compiled."""
    depth = 0
    for part in _PARTS.finditer(grammar):
        if part["command"] and part["command"] not in _COMMANDS:
            raise LarkError(f"`{part['command']}` is not allowed in grammars of custom tools.")
        if part["foreign"]:
            raise LarkError(f"`{part['foreign'][:40]}` is not allowed in grammars of custom tools.")
        depth += {"{": 1, "}": -1}.get(part["brace"] or "", 0)
        if depth < 0:
            break
    if depth:
        raise LarkError("The braces of the grammar do not match.")
    if not _START.search(grammar):
        raise LarkError("The grammar has no rule `start`.")
