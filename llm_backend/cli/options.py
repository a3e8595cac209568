"""Options of several commands."""

from pathlib import Path
from typing import Annotated

import typer


def _config_file(text: str) -> Path | None:
    """Return the file; None for an empty name, which counts as unset, as empty variables do."""
    return Path(text) if text else None


def _folder(text: str) -> Path:
    """Return the folder; an empty name, which would be the working folder, is refused."""
    if not text:
        raise typer.BadParameter("It is empty: give it a value or leave it out.")
    return Path(text)


Config = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file of settings.", parser=_config_file, metavar="PATH"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the database, as for `serve`.",
        parser=_folder,
        metavar="PATH",
    ),
]
BaseUrl = Annotated[
    str,
    typer.Option(help="Base URL of any server that speaks OpenAI's API.", envvar="OPENAI_BASE_URL"),
]
ApiKey = Annotated[
    str | None,
    typer.Option(help="API key, if the server needs one.", envvar="OPENAI_API_KEY"),
]
