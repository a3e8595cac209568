"""`llm-backend models`: list, download, show, remove and convert model files.

listing.py     `models list` and `models remove`
pulling.py     `models pull`
showing.py     `models show`
converting.py  `models convert`
"""

import typer

from llm_backend.cli.models.converting import convert
from llm_backend.cli.models.listing import list_models, remove
from llm_backend.cli.models.pulling import pull
from llm_backend.cli.models.showing import show

__all__ = ["commands"]

commands = typer.Typer(help="Model files.", no_args_is_help=True)
commands.command("list")(list_models)
commands.command("pull")(pull)
commands.command("show")(show)
commands.command("remove")(remove)
commands.command("convert")(convert)
