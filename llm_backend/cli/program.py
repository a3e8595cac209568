"""The program: its commands, and how it ends for what a person must mend."""

import typer

from llm_backend import __version__
from llm_backend.cli import contract, db, keys, models
from llm_backend.cli.bench import bench
from llm_backend.cli.chat import chat
from llm_backend.cli.check import check
from llm_backend.cli.failing import fail
from llm_backend.cli.operations import operations
from llm_backend.cli.reference import cli_markdown
from llm_backend.cli.serve import serve
from llm_backend.settings import SettingsError, configuration_markdown

__all__ = ["app", "main"]

app = typer.Typer(
    help="A self-hosted server that speaks OpenAI's API: local models, upstreams, a memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Runs a command; what a person must mend is one sentence on standard error, exit status 1."""
    try:
        app()
    except SettingsError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")


def configuration() -> None:
    """Print every setting, as docs/configuration.md."""
    print(configuration_markdown(), end="")


def commands() -> None:
    """Print every command and its options, as docs/cli.md."""
    print(cli_markdown(app), end="")


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
app.add_typer(contract.commands, name="contract")
app.add_typer(db.commands, name="db")
app.add_typer(keys.commands, name="keys")
app.command()(bench)
app.command()(version)
