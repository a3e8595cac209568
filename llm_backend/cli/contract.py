"""`llm-backend contract`: the contract, its differences to other releases, and its update."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_backend.cli.exit import exit_with_error

if TYPE_CHECKING:
    from llm_backend.contract.release.update import ContractUpdate

COMPILED = Path("llm_backend/contract/compiled")

commands = typer.Typer(help="The contract: OpenAI's API document.")

Source = Annotated[str, typer.Argument(help="Path or URL of OpenAI's OpenAPI document.")]
Folder = Annotated[Path, typer.Option(help="Folder of the contract.")]
Compiled = Annotated[Path, typer.Option(help="Folder of the compiled contract.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@commands.command("build")
def contract_build(
    source: Source,
    target: Annotated[Path, typer.Option(help="File to write.")] = Path("openapi/openapi.yaml"),
) -> None:
    """Write the contract: OpenAI's document without its descriptions."""
    from llm_backend.contract.compilation.builder import DocumentError, build_contract

    try:
        build_contract(source, target)
    except DocumentError as error:
        exit_with_error(str(error))
    print(f"Wrote {target}. Run `make setup` to compile it and `make test` to check it.")


@commands.command("diff")
def contract_diff(
    old: Annotated[str, typer.Argument(help="Path or URL of the old document.")],
    new: Annotated[str, typer.Argument(help="Path or URL of the new document.")],
    as_json: AsJson = False,
) -> None:
    """Compare two documents: what changed, and what of it breaks clients or this server."""
    from llm_backend.contract.compilation.builder import DocumentError, facts_of, read_document
    from llm_backend.contract.release import report
    from llm_backend.contract.release.comparison import compare_documents

    try:
        before, after = facts_of(read_document(old)), facts_of(read_document(new))
    except DocumentError as error:
        exit_with_error(str(error))
    names = [f"{one['info']['title']} {one['info']['version']}" for one in (before, after)]
    changes = compare_documents(before, after)
    if as_json:
        print(json.dumps(report.as_json(names[0], names[1], changes), indent=2))
    else:
        print(report.as_markdown(names[0], names[1], changes), end="")


@commands.command("update")
def contract_update(
    source: Source,
    openapi: Folder = Path("openapi"),
    compiled: Compiled = COMPILED,
    dry_run: DryRun = False,
) -> None:
    """Update the contract to another release of the document, unless that fails to compile."""
    from llm_backend.contract.compilation.builder import DocumentError
    from llm_backend.contract.release.update import prepare_update

    try:
        update = prepare_update(openapi, source)
    except DocumentError as error:
        exit_with_error(str(error))
    except FileNotFoundError as error:
        exit_with_error(_missing(error))
    _write(update, openapi, compiled, dry_run=dry_run)


@commands.command("sdk")
def contract_sdk(
    openapi: Folder = Path("openapi"), compiled: Compiled = COMPILED, dry_run: DryRun = False
) -> None:
    """Add what the installed `openai` package calls and the document lacks, as sdk.yaml."""
    from llm_backend.contract.release.sdk_update import prepare_sdk_update

    try:
        update = prepare_sdk_update(openapi)
    except ImportError:
        exit_with_error("The `openai` package is not installed: `make setup` installs it.")
    except FileNotFoundError as error:
        exit_with_error(_missing(error))
    _write(update, openapi, compiled, dry_run=dry_run)


def _write(update: "ContractUpdate", openapi: Path, compiled: Path, *, dry_run: bool) -> None:
    """Print the report and write the files, unless an action of the overlay must be corrected by
    hand."""
    from llm_backend.contract.compilation.compiler import ContractError
    from llm_backend.contract.compilation.overlay import OverlayError
    from llm_backend.contract.release.update import write_files

    print(update.report, end="")
    if not update.is_complete:
        exit_with_error("Nothing was written: the actions marked STALE need new targets.")
    if dry_run:
        return
    try:
        write_files(update.files, openapi, compiled)
    except (ContractError, OverlayError) as error:
        exit_with_error(f"Nothing was written: {error}")
    print(f"\nWrote {openapi}/ and compiled it. Run `make docs lint test` to check it.")


def _missing(error: FileNotFoundError) -> str:
    return f"{error.filename} is missing: run this in a checkout, or name --openapi."
