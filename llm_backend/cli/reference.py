"""`llm-backend commands`: the text of docs/cli.md, all commands and their options."""

from collections.abc import Iterator
from typing import Any

import typer
import typer.main


def cli_markdown(app: typer.Typer) -> str:
    """Generate `docs/cli.md` from the help texts of all commands."""
    lines = [
        "# Command line",
        "",
        "Generated from the help texts by `llm-backend commands`.",
    ]
    for name, command in _commands(typer.main.get_command(app), "llm-backend"):
        lines += ["", f"## {name}", "", *_paragraphs(command.help), *_usage(name, command)]
        for kind, title in (("argument", "argument"), ("option", "option")):
            rows = [_row(one) for one in command.params if one.param_type_name == kind]
            if rows:
                lines += ["", f"| {title} | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # Any: the library's own
    children = getattr(command, "commands", None)
    if not children:
        yield name, command
        return
    for child in children:
        yield from _commands(children[child], f"{name} {child}")


def _paragraphs(text: str | None) -> list[str]:
    return (text or "").strip().splitlines()


def _usage(name: str, command: Any) -> list[str]:
    words = [name]
    for one in command.params:
        if one.param_type_name == "argument":
            word = one.name.upper()
            words.append(word if one.required else f"[{word}]")
    if any(one.param_type_name == "option" for one in command.params):
        words.append("[OPTIONS]")
    return ["", "```sh", " ".join(words), "```"]


def _row(one: Any) -> str:
    name = one.name.upper()
    if one.param_type_name == "option":
        name = ", ".join([*one.opts, *one.secondary_opts])
    default = one.default
    default_text = (
        "" if default in (None, False, ()) or callable(default) else f" Default: `{default}`."
    )
    variable = f" Also `{one.envvar}`." if getattr(one, "envvar", None) else ""
    return f"| `{name}` | {one.help or ''}{default_text}{variable} |"
