"""The command line: `llm-backend serve | operations | configuration | contract | models | db`.

The only module that prints. Heavy imports wait inside the commands that need them, so that `--help`
and `operations` answer at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from llm_backend import __version__
from llm_backend.settings import (
    BUILTIN,
    Settings,
    SettingsError,
    configuration_markdown,
    load_settings,
)

__all__ = ["main"]

app = typer.Typer(
    help="A self-hosted server whose program is OpenAI's own API document.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
contract_commands = typer.Typer(help="The contract: OpenAI's document as facts.")
models_commands = typer.Typer(help="Model files.")
db_commands = typer.Typer(help="The database.")
app.add_typer(contract_commands, name="contract")
app.add_typer(models_commands, name="models")
app.add_typer(db_commands, name="db")

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]


def main() -> None:
    """Runs a command; what a person must mend is one sentence on standard error, exit status 1."""
    try:
        app()
    except SettingsError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the database and of files.")
    ] = None,
    config: Config = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="GGUF file to serve, `builtin`, or `none`; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(help="Further name, `NAME` or `NAME=MODEL`; may be repeated."),
    ] = None,
    tool_format: Annotated[
        list[str] | None,
        typer.Option(
            help="How tool calls are written, `FORMAT` or `MODEL=FORMAT`; may be repeated."
        ),
    ] = None,
    draft_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Smaller GGUF file that writes ahead, `FILE` or `MODEL=FILE`; may be repeated."
        ),
    ] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Tokens one sequence holds.")] = None,
    slots: Annotated[int | None, typer.Option(help="Sequences a model runs at once.")] = None,
    store_chats: Annotated[str | None, typer.Option(help="always, on-request or never.")] = None,
    response_validation: Annotated[str | None, typer.Option(help="off, log or enforce.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_prompts: Annotated[
        bool | None, typer.Option("--log-prompts", help="Log JSON request bodies.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="API processes that share the models.")
    ] = None,
    allow_open: Annotated[
        bool | None, typer.Option("--allow-open", help="Listen beyond loopback without a key.")
    ] = None,
) -> None:
    """Serve the API."""
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "models": None if model is None else [name for name in model if name != "none"],
        "aliases": alias,
        "tool_formats": tool_format,
        "draft_models": draft_model,
        "context_tokens": context_tokens,
        "slots": slots,
        "store_chats": store_chats,
        "response_validation": response_validation,
        "log_level": log_level,
        "log_prompts": log_prompts,
        "processes": processes,
        "allow_open": allow_open,
    }
    settings = load_settings(given, config)

    from llm_backend.serving import CannotServe
    from llm_backend.serving import serve as serve_settings

    try:
        serve_settings(settings, lambda address: _announce(address, settings))
    except CannotServe as error:
        _fail(str(error))


@app.command()
def operations(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As docs/coverage.md.")] = False,
) -> None:
    """Print every operation of the document and who answers it."""
    from llm_backend.contract import ContractMissing, coverage_markdown, load_document
    from llm_backend.contract import as_json as records_of

    try:
        table = load_document().operations
    except ContractMissing as error:
        _fail(str(error))
    if as_json:
        print(json.dumps(records_of(table), indent=2))
    elif as_markdown:
        print(coverage_markdown(table), end="")
    else:
        _print_operations(records_of(table))


@contract_commands.command("build")
def contract_build(
    source: Annotated[str, typer.Argument(help="Path or URL of OpenAI's OpenAPI document.")],
    target: Annotated[Path, typer.Option(help="Where to write it.")] = Path("openapi/openapi.yaml"),
) -> None:
    """Write the contract: the document without its prose."""
    from llm_backend.contract.builder import build_contract

    build_contract(source, target)
    print(f"Wrote {target}. Run `make setup` to compile it and `make test` to see what it breaks.")


@models_commands.command("convert")
def models_convert(
    source: Annotated[str, typer.Argument(help="Model folder, or an installed package's name.")],
    out: Annotated[Path, typer.Option(help="GGUF file to write.")],
    outtype: Annotated[str, typer.Option(help="f32, f16 or q8_0.")] = "f16",
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Make a GGUF file of an embedding model in the sentence-transformers layout."""
    _convert(source, out, outtype, force)


@db_commands.command("migrate")
def db_migrate(config: Config = None) -> None:
    """Bring the database's tables to this version (serve does it by itself)."""
    import asyncio

    from llm_backend.app import migrate_database
    from llm_backend.store import StoreError

    settings = load_settings({}, config)
    try:
        asyncio.run(migrate_database(settings))
    except StoreError as error:
        _fail(str(error))
    print("The database is at this version's tables.")


@app.command()
def configuration() -> None:
    """Print every setting, as docs/configuration.md."""
    print(configuration_markdown(), end="")


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def _announce(address: str, settings: Settings) -> None:
    base_url = f"{address}/v1"
    model = next(iter(settings.models), None)
    print(f"Serving on {address}  (base URL for clients: {base_url})")
    print(f"Data lies in {settings.data_dir}")
    if model is not None:
        name = model if model == BUILTIN else Path(model).stem
        question = {"role": "user", "content": "Who are you?"}
        body = json.dumps({"model": name, "messages": [question]})
        print(f"Try: curl {base_url}/chat/completions \\")
        if settings.api_keys:
            print("       -H 'authorization: Bearer YOUR_KEY' \\")
        print(f"       -H 'content-type: application/json' -d '{body}'")
    sys.stdout.flush()


def _print_operations(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("operation", "method", "path", "answered", "controller")
    colour = {"local": "green", "upstream": "cyan", "unsupported": "yellow"}
    for record in records:
        answered = record["answered"]
        table.add_row(
            record["operationId"],
            record["method"],
            record["path"],
            f"[{colour[answered]}]{answered}[/]",
            record["controller"],
        )
    Console().print(table)


def _fail(sentence: str) -> NoReturn:
    print(f"llm-backend: {sentence}", file=sys.stderr)
    raise SystemExit(1)


def _convert(source: str, out: Path, outtype: str, force: bool) -> None:
    from rich.progress import Progress

    from llm_backend.models import ConversionError, convert, find_model_folder

    if outtype not in ("f32", "f16", "q8_0"):
        _fail(f"--outtype is {outtype!r}; it must be f32, f16 or q8_0.")
    with Progress(disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"Writing {out.name}")
        try:
            made = convert(
                find_model_folder(source),
                out,
                outtype=outtype,  # type: ignore[arg-type] # one of the three, as checked above
                force=force,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except ConversionError as error:
            _fail(str(error))
    print(f"Wrote {made.path} ({made.size_bytes / 1e6:.0f} MB, {made.tensors} tensors).")
    print(f"Serve it: llm-backend serve --model builtin --model {made.path}")
