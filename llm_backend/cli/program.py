"""The program: all commands, and its exit status. A user's error is printed as one sentence."""

import gc
import io
import os
import sys
from typing import Annotated, Literal

import typer
from typer.completion import (  # type: ignore[attr-defined] # not an explicit re-export
    completion_init,
    get_completion_script,
)

from llm_backend import __version__
from llm_backend.cli import contract, db, keys, models
from llm_backend.cli.bench import bench
from llm_backend.cli.chat import chat
from llm_backend.cli.check import check
from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.manual import manual_page
from llm_backend.cli.operations import operations
from llm_backend.cli.reference import cli_markdown
from llm_backend.cli.serve import Serve, serve
from llm_backend.cli.systemd import systemd
from llm_backend.settings import SettingsError, configuration_markdown

app = typer.Typer(
    help="A self-hosted server that speaks OpenAI's API: local models, upstreams, stored state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """A self-hosted server that speaks OpenAI's API: local models, upstreams, stored state."""


def main() -> None:
    """Run a command. An error of the user exits with status 1 and one sentence on standard error.
    Ctrl-C exits with status 130, unless the server has installed its own handler."""
    _open_standard_streams()
    completion_init()  # registers shells whose scripts request completions
    try:
        _run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except SettingsError as error:
        exit_with_error(str(error))
    except OSError as error:
        exit_with_error(
            f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
        )


def _open_standard_streams() -> None:
    """Open the null device in the place of closed standard streams, whose numbers other files would
    get. Native code writes to these numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:  # it was closed
        sys.stdin = io.TextIOWrapper(io.BytesIO())


def _run() -> None:
    """Run a command, which exits. `serve` raises `Serve` instead: the server runs here, after the
    memory of the flags is freed."""
    try:
        app()
    except Serve as command:
        serve = command.with_traceback(None)  # the traceback keeps the flags in memory
    gc.collect()
    serve.run()


def configuration() -> None:
    """Print docs/configuration.md: all settings."""
    print(configuration_markdown(), end="")


def commands() -> None:
    """Print docs/cli.md: all commands and their options."""
    print(cli_markdown(app), end="")


def manual() -> None:
    """Print the manual page, llm-backend.1, in roff."""
    print(manual_page(app), end="")


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="bash, zsh or fish.")],
) -> None:
    """Print the completion script of a shell.

    bash: `source <(llm-backend completion bash)` in ~/.bashrc; zsh: the same in ~/.zshrc, after
    `compinit`; fish: `llm-backend completion fish > ~/.config/fish/completions/llm-backend.fish`.
    """
    print(
        get_completion_script(
            prog_name="llm-backend", complete_var="_LLM_BACKEND_COMPLETE", shell=shell
        )
    )


def version() -> None:
    """Print the version."""
    print(__version__)


app.command()(serve)
app.command()(chat)
app.command()(check)
app.add_typer(models.commands, name="models")
app.command()(operations)
app.command()(configuration)
app.command()(commands)
app.command()(manual)
app.command()(completion)
app.command()(systemd)
app.add_typer(contract.commands, name="contract")
app.add_typer(db.commands, name="db")
app.add_typer(keys.commands, name="keys")
app.command()(bench)
app.command()(version)
