"""`llm-backend models pull`: a model comes from the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from llm_backend.cli.failing import fail
from llm_backend.cli.options import Config
from llm_backend.settings import load_settings

__all__ = ["pull"]


def pull(
    model: Annotated[
        str, typer.Argument(help="OWNER/NAME, or OWNER/NAME:QUANT for one of its files.")
    ],
    mmproj: Annotated[
        bool, typer.Option("--mmproj", help="Its projector too, by which it sees or hears.")
    ] = False,
    config: Config = None,
) -> None:
    """Bring a model's GGUF file from the Hugging Face hub into the models folder.

    What was interrupted goes on where it stopped. HF_TOKEN opens what is private or gated,
    HF_ENDPOINT names another hub.
    """
    from llm_backend.model_files import HUB_NAME
    from llm_backend.models.hub import PullError

    named = HUB_NAME.fullmatch(model)
    if named is None:
        fail(f"`{model}` is no name of a model on the hub: it is OWNER/NAME or OWNER/NAME:QUANT.")
    owner, name, quant = named.groups()
    folder = load_settings({}, config).models_folder / owner / name
    try:
        paths = _pull_files(f"{owner}/{name}", quant, folder, with_projector=mmproj)
    except PullError as error:
        fail(str(error))
    except KeyboardInterrupt:
        again = f"llm-backend models pull {'--mmproj ' if mmproj else ''}{model}"
        fail(f"Interrupted; `{again}` goes on where it stopped.")
    for path in paths:
        _check(path)
        print(f"{path} ({path.stat().st_size / 1e6:,.0f} MB)")
    if mmproj:
        print(f"Serve it: models: [{{path: {model}, mmproj: {owner}/{name}}}] in the config file.")
    else:
        print(f"Serve it: llm-backend serve --model {model}")


def _check(path: Path) -> None:
    """End where a file is no model, or not whole, as it lies on the hub."""
    from llm_backend.model_files import HeaderError, read_header

    try:
        read_header(path)
    except HeaderError as error:
        fail(str(error))


def _pull_files(name: str, quant: str | None, folder: Path, *, with_projector: bool) -> list[Path]:
    """The files, with a bar on standard error for the one that is coming if a person is there."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TransferSpeedColumn,
    )

    from llm_backend.models.hub import HubFile
    from llm_backend.models.hub import pull as pulled

    errors = Console(stderr=True)
    what_and_how_far = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    columns = (*what_and_how_far, DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as bars:

        def begins(file: HubFile) -> None:
            bars.add_task(file.path, total=file.size_bytes)

        def came(size: int) -> None:
            bars.advance(bars.tasks[-1].id, size)

        return pulled(name, quant, folder, with_projector=with_projector, begins=begins, came=came)
