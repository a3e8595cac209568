"""`llm-backend commands`: the text of docs/cli.md, with all commands and their options."""

from collections.abc import Iterator
from typing import Any

import typer
import typer.main


def cli_markdown(app: typer.Typer) -> str:
    """Generates `docs/cli.md` from the help texts of all commands."""
    lines = ["# Command line", "", "Generated from the help texts by `llm-backend commands`."]
    for name, command in commands_of(app):
        lines += ["", f"## {name}", "", *_paragraphs(command.help)]
        lines += ["", "```sh", usage(name, command), "```"]
        for kind in ("argument", "option"):
            rows = [
                f"| `{parameter_name(one)}` | {meaning(one)} |"
                for one in command.params
                if one.param_type_name == kind
            ]
            if rows:
                lines += ["", f"| {kind} | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def commands_of(app: typer.Typer) -> Iterator[tuple[str, Any]]:  # Any: the library's own
    """Yields each command with its full name."""
    return _commands(typer.main.get_command(app), "llm-backend")


def usage(name: str, command: Any) -> str:
    """Returns the command with its arguments in one line."""
    words = [name]
    for one in command.params:
        if one.param_type_name == "argument":
            word = one.name.upper()
            words.append(word if one.required else f"[{word}]")
    if any(one.param_type_name == "option" for one in command.params):
        words.append("[OPTIONS]")
    return " ".join(words)


def parameter_name(one: Any) -> str:
    """Returns the name of an argument, or the flags of an option."""
    if one.param_type_name == "option":
        return ", ".join([*one.opts, *one.secondary_opts])
    return str(one.name.upper())


def meaning(one: Any) -> str:
    """Returns the help of an argument or option, with its default and environment variable."""
    default = one.default
    default_text = (
        "" if default in (None, False, ()) or callable(default) else f" Default: `{default}`."
    )
    variable = f" Also `{one.envvar}`." if getattr(one, "envvar", None) else ""
    return f"{one.help or ''}{default_text}{variable}"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # Any: the library's own
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
        return
    for child in children:
        yield from _commands(children[child], f"{name} {child}")


def _paragraphs(text: str | None) -> list[str]:
    return (text or "").strip().splitlines()
