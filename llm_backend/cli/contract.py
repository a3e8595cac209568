"""`llm-backend contract`: rebuilds the contract from OpenAI's document."""

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(help="The contract: OpenAI's API document.")


@commands.command("build")
def contract_build(
    source: Annotated[str, typer.Argument(help="Path or URL of OpenAI's OpenAPI document.")],
    target: Annotated[Path, typer.Option(help="File to write.")] = Path("openapi/openapi.yaml"),
) -> None:
    """Write the contract: OpenAI's document without its descriptions."""
    from llm_backend.contract.compilation.builder import build_contract

    build_contract(source, target)
    print(f"Wrote {target}. Run `make setup` to compile it and `make test` to check it.")
