"""`llm-backend contract`: OpenAI's document as facts."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["commands"]

commands = typer.Typer(help="The contract: OpenAI's document as facts.")


@commands.command("build")
def contract_build(
    source: Annotated[str, typer.Argument(help="Path or URL of OpenAI's OpenAPI document.")],
    target: Annotated[Path, typer.Option(help="Where to write it.")] = Path("openapi/openapi.yaml"),
) -> None:
    """Write the contract: the document without its prose."""
    from llm_backend.contract.builder import build_contract

    build_contract(source, target)
    print(f"Wrote {target}. Run `make setup` to compile it and `make test` to see what it breaks.")
