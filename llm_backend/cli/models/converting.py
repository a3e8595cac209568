"""`llm-backend models convert`: converts a model folder to a GGUF file."""

from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.extras import install_command, is_installed
from llm_backend.installation import command


def convert(
    source: Annotated[str, typer.Argument(help="Model folder, or an installed package's name.")],
    out: Annotated[Path, typer.Option(help="GGUF file to write.")],
    outtype: Annotated[str, typer.Option(help="f32, f16 or q8_0.")] = "f16",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Convert an embedding model in the sentence-transformers layout to a GGUF file."""
    _convert(source, out, outtype, force)


def _convert(source: str, out: Path, outtype: str, force: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    if not is_installed("convert"):
        exit_with_error(f"Converting a model needs the gguf package: {install_command('convert')}.")

    from llm_backend.model_import import ConversionError, find_model_folder
    from llm_backend.model_import import convert as convert_folder

    if outtype not in ("f32", "f16", "q8_0"):
        exit_with_error(f"--outtype is {outtype!r}; it must be f32, f16 or q8_0.")
    errors = Console(stderr=True)
    with Progress(console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"Writing {out.name}")
        try:
            gguf = convert_folder(
                find_model_folder(source),
                out,
                outtype=outtype,  # type: ignore[arg-type] # one of the three, as checked above
                force=force,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        except ConversionError as error:
            exit_with_error(str(error))
    print(f"Wrote {gguf.path} ({gguf.size_bytes / 1e6:.0f} MB, {gguf.tensors} tensors).")
    print(f"Serve it: {command(f'serve --model builtin --model {gguf.path}')}")
