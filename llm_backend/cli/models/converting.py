"""`llm-backend models convert`: a folder becomes a GGUF file."""

from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.failing import fail

__all__ = ["convert"]


def convert(
    source: Annotated[str, typer.Argument(help="Model folder, or an installed package's name.")],
    out: Annotated[Path, typer.Option(help="GGUF file to write.")],
    outtype: Annotated[str, typer.Option(help="f32, f16 or q8_0.")] = "f16",
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Make a GGUF file of an embedding model in the sentence-transformers layout."""
    _convert(source, out, outtype, force)


def _convert(source: str, out: Path, outtype: str, force: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from llm_backend.models import ConversionError, find_model_folder
    from llm_backend.models import convert as converted

    if outtype not in ("f32", "f16", "q8_0"):
        fail(f"--outtype is {outtype!r}; it must be f32, f16 or q8_0.")
    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"Writing {out.name}")
        try:
            made = converted(
                find_model_folder(source),
                out,
                outtype=outtype,  # type: ignore[arg-type] # one of the three, as checked above
                force=force,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except ConversionError as error:
            fail(str(error))
    print(f"Wrote {made.path} ({made.size_bytes / 1e6:.0f} MB, {made.tensors} tensors).")
    print(f"Serve it: llm-backend serve --model builtin --model {made.path}")
