"""`llm-backend models pull`: a model comes from the Hugging Face hub."""

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
    config: Config = None,
) -> None:
    """Bring a model's GGUF file from the Hugging Face hub into the models folder.

    What was interrupted goes on where it stopped. HF_TOKEN opens what is private or gated,
    HF_ENDPOINT names another hub.
    """
    from llm_backend.model_files import HUB_NAME
    from llm_backend.models.hub import PullError
    from llm_backend.models.hub import pull as pulled

    named = HUB_NAME.fullmatch(model)
    if named is None:
        fail(f"`{model}` is no name of a model on the hub: it is OWNER/NAME or OWNER/NAME:QUANT.")
    owner, name, quant = named.groups()
    folder = load_settings({}, config).models_folder / owner / name
    try:
        paths = pulled(f"{owner}/{name}", quant, folder)
    except PullError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"Interrupted; `llm-backend models pull {model}` goes on where it stopped.")
    for path in paths:
        print(f"{path} ({path.stat().st_size / 1e6:,.0f} MB)")
    print(f"Serve it: llm-backend serve --model {model}")
