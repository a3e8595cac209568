"""`llm-backend models pull`: downloads a model from the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import Config
from llm_backend.extras import install_command, is_installed
from llm_backend.installation import command
from llm_backend.settings import load_settings


def pull(
    model: Annotated[
        str, typer.Argument(help="OWNER/NAME, or OWNER/NAME:QUANT for one of its files.")
    ],
    mmproj: Annotated[
        bool, typer.Option("--mmproj", help="Also its projector, for images or audio.")
    ] = False,
    config: Config = None,
) -> None:
    """Download a model from the Hugging Face hub: its GGUF file, or a `ggml-NAME.bin` of Whisper.

    An interrupted download resumes. HF_TOKEN gives access to private or gated models, HF_ENDPOINT
    names another hub.
    """
    if not is_installed("local"):
        exit_with_error(
            "A pulled model needs the local engine, which is not installed: "
            f"{install_command('local', 'hub')}."
        )

    from llm_backend.model_files import HUB_NAME
    from llm_backend.model_import.hub import PullError

    match = HUB_NAME.fullmatch(model)
    if match is None:
        exit_with_error(
            f"`{model}` is not a model name of the hub: use OWNER/NAME or OWNER/NAME:QUANT."
        )
    owner, name, quant = match.groups()
    folder = load_settings({}, config).models_folder / owner / name
    try:
        paths = _pull_files(f"{owner}/{name}", quant, folder, with_projector=mmproj)
    except PullError as error:
        exit_with_error(str(error))
    except KeyboardInterrupt:
        again = command(f"models pull {'--mmproj ' if mmproj else ''}{model}")
        exit_with_error(f"Interrupted; `{again}` resumes the download.")
    for path in paths:
        _check(path)
        print(f"{path} ({path.stat().st_size / 1e6:,.0f} MB)")
    if mmproj:
        print(f"Serve it: models: [{{path: {model}, mmproj: {owner}/{name}}}] in the config file.")
    else:
        print(f"Serve it: {command(f'serve --model {model}')}")


def _check(path: Path) -> None:
    """Exit with an error if the file is not a complete model."""
    from llm_backend.model_files import HeaderError, read_model_file

    try:
        read_model_file(path)
    except HeaderError as error:
        exit_with_error(str(error))


def _pull_files(name: str, quant: str | None, folder: Path, *, with_projector: bool) -> list[Path]:
    """Download the files, with a progress bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    from llm_backend.model_import.hub import HubFile
    from llm_backend.model_import.hub import pull as pull_from_hub

    errors = Console(stderr=True)
    progress = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    columns = (*progress, DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bars:

        def on_file(file: HubFile) -> None:
            bars.add_task(file.path, total=file.size_bytes)

        def on_bytes(size: int) -> None:
            bars.advance(bars.tasks[-1].id, size)

        return pull_from_hub(
            name, quant, folder, with_projector=with_projector, on_file=on_file, on_bytes=on_bytes
        )
