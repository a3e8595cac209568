"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["Config"]

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
