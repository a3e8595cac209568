"""Terminal: colours, and the messages that are typed in it, with a history."""

import atexit
import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from llm_backend.home_folder import expand_home
from llm_backend.settings.environment import variable

HISTORY = Path("~/.local/state/llm-backend/chat-history")
_HISTORY_LINES = 1000
_BLOCK = '"""'
BOLD_GREEN, DIM, RED = "1;32", "2", "31"
_HIDDEN = "\001{}\002"  # readline gives the text between no width


def has_colours(stream: TextIO) -> bool:
    """Return True if the stream is a terminal and the environment has no `NO_COLOR`."""
    return stream.isatty() and variable("NO_COLOR") is None


def colour(text: str, code: str, stream: TextIO) -> str:
    """Return the text in a colour, if the stream has colours."""
    return f"\033[{code}m{text}\033[0m" if has_colours(stream) else text


def prepare_input() -> bool:
    """Return True if standard input is a terminal. Bytes in it that are not text become U+FFFD."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin.isatty()


def read_messages(*, is_terminal: bool) -> Iterator[str]:
    """Yield the messages of standard input until its end, one a line. A line that ends with a
    backslash goes on in the next; text between three quotation marks is one message, and so are
    lines that are pasted in a terminal."""
    prompt, continuation = (_prompt("> "), _prompt(". ")) if is_terminal else ("", "")
    if is_terminal:
        _remember_lines(expand_home(HISTORY))
    while True:
        try:
            yield _read(prompt, continuation)
        except (EOFError, KeyboardInterrupt):
            return


def _prompt(text: str) -> str:
    if not has_colours(sys.stdout):
        return text
    begin, end = (_HIDDEN.format(f"\033[{code}m") for code in (BOLD_GREEN, "0"))
    return f"{begin}{text}{end}"


def _read(prompt: str, continuation: str) -> str:
    line = input(prompt).strip()
    if line.startswith(_BLOCK):
        return _read_block(line.removeprefix(_BLOCK), continuation)
    while line.endswith("\\"):
        line = f"{line[:-1]}\n{input(continuation).strip()}"
    return line


def _read_block(text: str, continuation: str) -> str:
    lines = [text]
    while not lines[-1].rstrip().endswith(_BLOCK):
        lines.append(input(continuation))
    return "\n".join(lines).rstrip().removesuffix(_BLOCK).strip("\n")


def _remember_lines(file: Path) -> None:
    """Let readline edit lines, and keep them in a file that only its owner reads."""
    try:
        readline: Any = importlib.import_module("readline")  # some systems have none
    except ImportError:
        return
    if variable("TERM") not in (None, "dumb"):  # these do not mark pasted text
        readline.parse_and_bind("set enable-bracketed-paste on")  # which Python turns off
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.read_history_file(file)
    except OSError:  # the home folder is not writable: the history is not kept
        return
    readline.set_history_length(_HISTORY_LINES)
    atexit.register(readline.write_history_file, file)
