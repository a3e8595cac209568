"""`llm-backend manual`: the manual page, from the same help texts as docs/cli.md."""

from collections.abc import Iterator
from typing import Any

import typer

from llm_backend import __version__
from llm_backend.cli.reference import commands_of, meaning, parameter_name, usage


def manual_page(app: typer.Typer) -> str:
    """Return the page in roff."""
    lines = [
        f'.TH LLM-BACKEND 1 "" "llm-backend {__version__}"',
        ".SH NAME",
        f"llm\\-backend \\- {_text(str(app.info.help))}",
        ".SH SYNOPSIS",
        "\\fBllm\\-backend\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]",
        ".SH COMMANDS",
    ]
    for name, command in commands_of(app):
        lines += [f".SS {_text(usage(name, command))}", *_paragraphs(command.help)]
        for one in command.params:
            lines += [".TP", f".B {_text(parameter_name(one))}", _text(meaning(one))]
    return "\n".join(lines) + "\n"


def _paragraphs(text: Any) -> Iterator[str]:  # Any: the library's own
    for paragraph in str(text or "").strip().split("\n\n"):
        yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Return a line of text in which roff finds no request and no escape."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
