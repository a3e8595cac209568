"""Finds models that were installed as Python packages, without importing them."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from llm_backend.home_folder import expand_home
from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.safetensors import WEIGHTS_FILE


def find_model_folder(source: str) -> Path:
    """Returns the model folder of `source`, a path or the name of an installed package.

    Importing a package may import torch and more, so only its list of files is read. Raises
    `ConversionError` if it is neither, or if the package holds no model.
    """
    folder = expand_home(source)
    if folder.is_dir():
        return folder
    for candidate in _folders_with_weights(_find_distribution(source)):
        if (candidate / "config.json").is_file():
            return candidate
    raise ConversionError(
        f"The package {source} holds no folder with config.json and {WEIGHTS_FILE}."
    )


def _find_distribution(name: str) -> Distribution:
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError) as error:
        raise ConversionError(
            f"{name!r} is neither a folder nor the name of an installed package."
        ) from error


def _folders_with_weights(package: Distribution) -> list[Path]:
    weights = [file for file in package.files or [] if file.name == WEIGHTS_FILE]
    return sorted(Path(str(package.locate_file(file))).parent for file in weights)
