"""Models of the models folder that no entry of the settings names."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_backend.app.engine_configs import read_servable_file
from llm_backend.backends.speech import BUILTIN_VOICE
from llm_backend.builtin import BUILTIN_ID
from llm_backend.home_folder import expand_home
from llm_backend.model_files import (
    DRAWING_PARTS,
    ModelFileMissing,
    find_model_file,
    list_model_files,
    model_name,
)
from llm_backend.settings import BUILTIN, Settings, SettingsError
from llm_backend.settings.model_entry import ModelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FolderModel:
    """A model file, by its name in the folder, and its entry."""

    name: str
    entry: ModelSettings


def find_folder_models(settings: Settings, named: Sequence[ModelSettings]) -> list[FolderModel]:
    """Returns the models of the folder that `named` does not have, those at its root first. A model
    is named after its file, or after its path in the folder if that name is taken. Files that
    cannot be read, or whose names are all taken, are logged and left out. Raises `SettingsError`
    if the folder is a file."""
    folder = settings.models_folder
    if folder.exists() and not folder.is_dir():
        raise SettingsError(
            f"`models_dir`: {folder} is not a folder; name the folder that holds the file."
        )
    files = [_file(entry.path, folder) for entry in named]
    known = {file.resolve() for file in files if file is not None} | _parts(settings)
    taken = _taken_names(settings, named, files)
    models = []
    for path in sorted(list_model_files(folder), key=lambda path: path.parent != folder):
        if path.resolve() in known or not _is_readable(path):
            continue
        name = path.relative_to(folder).as_posix()
        names = (model_name(path), name.removesuffix(path.suffix))
        id = next((one for one in names if one not in taken), None)
        if id is None:
            reason = f"{path} is not served: another model has its name. Rename the file."
            log.warning("model_file_refused", extra={"reason": reason})
            continue
        taken.add(id)
        entry = ModelSettings.model_validate({"path": str(path), "id": id, "load": "demand"})
        models.append(FolderModel(name=name, entry=entry))
    return models


def _parts(settings: Settings) -> set[Path]:
    """Returns the parts of models that draw: these files are no models themselves."""
    folder, options = settings.models_folder, settings.image_models.values()
    named = [getattr(one, part) for one in options for part in DRAWING_PARTS]
    return {
        path.resolve()
        for one in named
        if one is not None
        for path in (expand_home(one), folder / one)
    }


def _taken_names(
    settings: Settings, named: Sequence[ModelSettings], files: Sequence[Path | None]
) -> set[str]:
    """Returns the names that the settings give, and those of the built-in model and voice. Routes
    are left out: a route may have a model's name, and lead to that model and then to others."""
    taken = {BUILTIN_ID, BUILTIN_VOICE, *(alias.partition("=")[0] for alias in settings.aliases)}
    for entry, file in zip(named, files, strict=True):
        id = entry.id or (BUILTIN_ID if file is None else model_name(file))
        taken |= {id, *entry.aliases}
    suffixes = {one for entry in named for one in (*entry.personalities, *entry.adapters)}
    return taken | {f"{name}:{one}" for name in taken for one in suffixes}


def _is_readable(path: Path) -> bool:
    try:
        read_servable_file(path)
    except SettingsError as error:
        log.warning("model_file_refused", extra={"reason": str(error)})
        return False
    return True


def _file(path: str, folder: Path) -> Path | None:
    """Returns the file of an entry; None if there is no such file (the start fails elsewhere)."""
    if path == BUILTIN:
        return None
    try:
        return find_model_file(path, folder)
    except ModelFileMissing:
        return None
