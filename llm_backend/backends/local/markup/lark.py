"""Grammars in Lark that clients give for the text of a call: what may stand in one. Pure."""

import re

__all__ = ["LARK", "LarkError", "check_lark"]

LARK = "x-lark"
"""The keyword of a parameter that is a text by such a grammar."""

_PARTS = re.compile(
    r"""(?://|\#)[^\n]*                                # comments, texts and expressions
    |   "(?:\\.|[^"\\\n])*+"
    |   /(?:\\.|[^/\\\n])++/
    |   (?P<command>%[a-z]+)
    |   (?P<foreign><[^<>\s][^<>\n]*>|@\w+)
    |   (?P<brace>[{}])
    |   \\.                                         # else each of a row would be a beginning
    """,
    re.VERBOSE,
)
_COMMANDS = {"%ignore", "%import"}
_START = re.compile(r"^[^\S\n]*start\b", re.MULTILINE)


class LarkError(ValueError):
    """The grammar cannot be used; the message is a sentence that says why."""


def check_lark(grammar: str) -> None:
    """Raise `LarkError` for what would reach out of the grammar, or is no grammar at all. The rest
    is found out when it is compiled."""
    depth = 0
    for part in _PARTS.finditer(grammar):
        if part["command"] and part["command"] not in _COMMANDS:
            raise LarkError(f"`{part['command']}` is not for grammars of custom tools.")
        if part["foreign"]:
            raise LarkError(f"`{part['foreign'][:40]}` is not for grammars of custom tools.")
        depth += {"{": 1, "}": -1}.get(part["brace"] or "", 0)
        if depth < 0:
            break
    if depth:
        raise LarkError("The braces of the grammar do not match.")
    if not _START.search(grammar):
        raise LarkError("The grammar has no rule `start`.")
