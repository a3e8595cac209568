"""Models of the models folder that no entry of the settings names."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_backend.builtin import BUILTIN_ID
from llm_backend.extras import install_command, is_installed
from llm_backend.model_files import (
    HeaderError,
    ModelFileMissing,
    check_model_file,
    find_model_file,
    is_whisper_file,
    models_in,
)
from llm_backend.settings import BUILTIN, Settings
from llm_backend.settings.model_entry import ModelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FolderModel:
    """A model file, by its name in the folder, and its entry."""

    name: str
    entry: ModelSettings


def find_folder_models(settings: Settings, named: Sequence[ModelSettings]) -> list[FolderModel]:
    """Returns the models of the folder that `named` does not have. A model has its file's name, or
    its name in the folder if another one has that. Files that cannot be read are logged."""
    folder = settings.models_folder
    known = {_file(entry.path, folder) for entry in named}
    taken = {entry.id or _stem(entry.path) for entry in named}
    models = []
    for path in models_in(folder):
        if path.resolve() in known or not _is_readable(path):
            continue
        name = path.relative_to(folder).as_posix()
        id = path.stem if path.stem not in taken else name.removesuffix(path.suffix)
        taken.add(id)
        entry = ModelSettings.model_validate({"path": str(path), "id": id, "load": "demand"})
        models.append(FolderModel(name=name, entry=entry))
    return models


def _is_readable(path: Path) -> bool:
    if is_whisper_file(path) and not is_installed("transcription"):
        reason = f"{path} needs an extra: {install_command('transcription')}."
        log.warning("model_file_refused", extra={"reason": reason})
        return False
    try:
        check_model_file(path)
    except HeaderError as error:
        log.warning("model_file_refused", extra={"reason": str(error)})
        return False
    return True


def _stem(path: str) -> str:
    return BUILTIN_ID if path == BUILTIN else Path(path).stem


def _file(path: str, folder: Path) -> Path | None:
    """Returns the file of an entry; None if it has none, for which the start is refused."""
    if path == BUILTIN:
        return None
    try:
        return find_model_file(path, folder).resolve()
    except ModelFileMissing:
        return None
