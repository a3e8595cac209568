"""Messages typed in a terminal, of one line or several, with a history that is kept."""

import atexit
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HISTORY = Path("~/.local/state/llm-backend/chat-history")
_HISTORY_LINES = 1000
_BLOCK = '"""'
_BOLD, _PLAIN = "\001\033[1;32m\002", "\001\033[0m\002"  # readline does not count what is between
_PROMPT, _CONTINUED = f"{_BOLD}> {_PLAIN}", f"{_BOLD}. {_PLAIN}"


def read_messages(*, is_terminal: bool) -> Iterator[str]:
    """Messages from standard input until its end: a line each. A backslash at its end continues a
    line, and lines between two lines of three quotation marks are one message."""
    prompt, continued = (_PROMPT, _CONTINUED) if is_terminal else ("", "")
    if is_terminal:
        _remember_lines(HISTORY.expanduser())
    while True:
        try:
            yield _read(prompt, continued)
        except (EOFError, KeyboardInterrupt):
            return


def _read(prompt: str, continued: str) -> str:
    line = input(prompt).strip()
    if line.startswith(_BLOCK):
        return _read_block(line.removeprefix(_BLOCK), continued)
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{input(continued).strip()}"
    return line


def _read_block(text: str, continued: str) -> str:
    lines = [text]
    while not lines[-1].rstrip().endswith(_BLOCK):
        lines.append(input(continued))
    return "\n".join(lines).rstrip().removesuffix(_BLOCK).strip("\n")


def _remember_lines(file: Path) -> None:
    """Let readline edit lines, and keep them in a file that only its owner reads."""
    try:
        readline: Any = importlib.import_module("readline")  # some systems have none
    except ImportError:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.read_history_file(file)
    except OSError:  # a home that cannot be written: lines are edited, and not kept
        return
    readline.set_history_length(_HISTORY_LINES)
    atexit.register(readline.write_history_file, file)
