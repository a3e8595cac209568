"""`llm-backend operations`: operations of the document, and their backends."""

import json
from typing import Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.json_types import JsonObject


def operations(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/coverage.md.")
    ] = False,
) -> None:
    """List all operations of the document, and whether they are local, relayed or unsupported."""
    from llm_backend.contract import ContractMissing, coverage_markdown, load_document
    from llm_backend.contract import as_json as records_of

    try:
        table = load_document().operations
    except ContractMissing as error:
        exit_with_error(str(error))
    if as_json:
        print(json.dumps(records_of(table), indent=2))
    elif as_markdown:
        print(coverage_markdown(table), end="")
    else:
        _print_operations(records_of(table))


def _print_operations(records: list[JsonObject]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("operation", "method and path", "answered"):
        table.add_column(column, overflow="fold")  # nothing is cut off in a narrow terminal
    colour = {"local": "green", "upstream": "cyan", "unsupported": "yellow"}
    for record in records:
        answered = record["answered"]
        table.add_row(
            record["operationId"],
            f"{record['method']} {record['path']}",
            f"[{colour[answered]}]{answered}[/] {record['controller'] or ''}",
        )
    Console().print(table)
