"""Locates model files: by path, name in the models folder, or `OWNER/NAME[:QUANT]`.

A model of the hub is stored at `OWNER/NAME/` in the models folder, with the hub's file names.
"""

import re
from pathlib import Path

__all__ = ["HUB_NAME", "ModelFileMissing", "find_model_file", "find_projector_file"]

HUB_NAME = re.compile(r"([\w.-]+)/([\w.-]+?)(?::([\w.-]+))?")
_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_NO_MODEL = re.compile(r"(mmproj|-(?!00001)\d{5}-of-\d{5}\.gguf$)", re.IGNORECASE)
"""Matches multimodal projectors, and the later parts of a split model."""


class ModelFileMissing(Exception):
    """Raised if there is no such file; the message is one sentence that says what to do."""


def find_model_file(given: str, folder: Path) -> Path:
    """Returns the GGUF file that `given` names; of a split model the first part.

    Raises `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(given, folder)
    if path is not None:
        return path
    hub = _hub_name(given, "model")
    return _pulled_file(given, folder / hub[1] / hub[2], hub[3])


def find_projector_file(given: str, folder: Path) -> Path:
    """Returns the GGUF file of the multimodal projector (mmproj) that `given` names.

    A quantization selects one of several projectors; with a single one it is ignored. Raises
    `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(given, folder)
    if path is not None:
        return path
    hub = _hub_name(given, "projector")
    files = sorted((folder / hub[1] / hub[2]).rglob("*.gguf"))
    there = [file for file in files if _PROJECTOR.search(file.name)]
    meant = [file for file in there if (hub[3] or "").lower() in file.name.lower()] or there
    if not meant:
        raise ModelFileMissing(
            f"The projector of `{given}` is not in {folder}: "
            f"`llm-backend models pull --mmproj {given}` brings it."
        )
    if len(meant) > 1:
        names = ", ".join(file.name for file in meant)
        raise ModelFileMissing(f"The projector of `{given}` may be {names}: name the file.")
    return meant[0]


def _path(given: str, folder: Path) -> Path | None:
    """Returns the file at the path `given`, as it is or in the folder; None if there is none."""
    path = Path(given).expanduser()
    if path.exists():
        return path
    is_there = not path.is_absolute() and (folder / path).is_file()
    return folder / path if is_there else None


def _hub_name(given: str, thing: str) -> re.Match[str]:
    hub = HUB_NAME.fullmatch(given)
    if hub is None or given.endswith(".gguf"):
        path = Path(given).expanduser()
        raise ModelFileMissing(f"Cannot read the {thing} {path}: No such file or directory.")
    return hub


def _pulled_file(given: str, folder: Path, quant: str | None) -> Path:
    files = [file for file in sorted(folder.rglob("*.gguf")) if not _NO_MODEL.search(file.name)]
    meant = [file for file in files if quant is None or quant.lower() in file.name.lower()]
    if not meant:
        raise ModelFileMissing(
            f"The model `{given}` is not in {folder}: `llm-backend models pull {given}` brings it."
        )
    if len(meant) > 1:
        names = ", ".join(file.name for file in meant)
        raise ModelFileMissing(f"`{given}` may be {names}: say which with `:QUANT`.")
    return meant[0]
