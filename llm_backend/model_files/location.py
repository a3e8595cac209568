"""Locates model files: by path, name in the models folder, or `OWNER/NAME[:QUANT]`.

A model of the hub is stored at `OWNER/NAME/` in the models folder, with the hub's file names.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from llm_backend.close_names import closest_name, did_you_mean
from llm_backend.installation import command
from llm_backend.model_files.header import model_parts
from llm_backend.model_files.whisper import is_whisper_file

HUB_NAME = re.compile(r"([\w.-]+)/([\w.-]+?)(?::([\w.-]+))?")
_PROJECTOR = re.compile(r"mmproj", re.IGNORECASE)
_NO_MODEL = re.compile(r"(mmproj|-(?!00001)\d{5}-of-\d{5}\.gguf$)", re.IGNORECASE)
"""Matches multimodal projectors, and the later parts of a split model."""


class ModelFileMissing(Exception):
    """Raised if there is no such file; the message is one sentence that says what to do."""


def find_model_file(name: str, folder: Path) -> Path:
    """Returns the GGUF file that `name` selects; of a split model the first part.

    Raises `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(name, folder)
    if path is not None:
        return path
    try:
        hub = _hub_name(name, "model")
        return _stored_file(name, folder / hub[1] / hub[2], hub[3])
    except ModelFileMissing as error:
        close = closest_name(name, ("builtin", *_names_in(folder)))
        raise ModelFileMissing(f"{error}{did_you_mean(close)}") from error


def find_projector_file(name: str, folder: Path) -> Path:
    """Returns the GGUF file of the multimodal projector (mmproj) that `name` selects.

    A quantization selects one of several projectors; with a single one it is ignored. Raises
    `ModelFileMissing` if there is none, or if the name is ambiguous.
    """
    path = _path(name, folder)
    if path is not None:
        return path
    hub = _hub_name(name, "projector")
    files = sorted((folder / hub[1] / hub[2]).rglob("*.gguf"))
    projectors = [file for file in files if _PROJECTOR.search(file.name)]
    matching = [
        file for file in projectors if (hub[3] or "").lower() in file.name.lower()
    ] or projectors
    if not matching:
        raise ModelFileMissing(
            f"The projector of `{name}` is not in {folder}: "
            f"`{command(f'models pull --mmproj {name}')}` brings it."
        )
    if len(matching) > 1:
        names = ", ".join(file.name for file in matching)
        raise ModelFileMissing(f"The projector of `{name}` may be {names}: name the file.")
    return matching[0]


def _path(name: str, folder: Path) -> Path | None:
    """Returns the file at the path `name`, as it is or in the folder; None if there is none."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    exists = not path.is_absolute() and (folder / path).is_file()
    return folder / path if exists else None


def _hub_name(name: str, kind: str) -> re.Match[str]:
    hub = HUB_NAME.fullmatch(name)
    if hub is None or name.endswith((".gguf", ".bin")):
        path = Path(name).expanduser()
        raise ModelFileMissing(f"Cannot read the {kind} {path}: No such file or directory.")
    return hub


def _stored_file(name: str, folder: Path, quant: str | None) -> Path:
    files = models_in(folder)
    matching = [file for file in files if quant is None or quant.lower() in file.name.lower()]
    if len(matching) > 1 and quant is not None:
        matching = [file for file in matching if is_named(file.name, quant)] or matching
    if not matching:
        raise ModelFileMissing(
            f"The model `{name}` is not in {folder}: `{command(f'models pull {name}')}` brings it."
        )
    if len(matching) > 1:
        names = ", ".join(file.name for file in matching)
        raise ModelFileMissing(f"`{name}` may be {names}: say which with `:QUANT`.")
    return matching[0]


def _names_in(folder: Path) -> Iterator[str]:
    """Yields the names of the folder's models: their files, and `OWNER/NAME` of those of a hub."""
    for file in models_in(folder):
        path = file.relative_to(folder)
        yield from (str(path), *({str(path.parent)} - {"."}))


def models_in(folder: Path) -> list[Path]:
    """Returns the models of a folder by name: of a split model its first part, no projectors."""
    files = [file for file in folder.rglob("*.gguf") if not _NO_MODEL.search(file.name)]
    whisper = [file for file in folder.rglob("*.bin") if is_whisper_file(file)]
    return sorted([*files, *whisper])


def is_named(file: str, name: str) -> bool:
    """Returns True if a file is `NAME` or `ggml-NAME`, with or without its suffix."""
    plain = file.lower().rpartition("/")[2]
    names = {plain, plain.rpartition(".")[0]}
    return name.lower() in names | {one.removeprefix("ggml-") for one in names}


def remove_model(path: Path, folder: Path) -> None:
    """Removes a model's parts, and folders below `folder` that are empty then. Raises `OSError`."""
    for part in model_parts(path):
        part.unlink(missing_ok=True)
    parent = path.parent
    while parent != folder and parent.is_relative_to(folder) and not any(parent.iterdir()):
        parent.rmdir()
        parent = parent.parent
