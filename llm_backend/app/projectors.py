"""Projectors that the settings name, by which models read pictures and sound."""

from dataclasses import dataclass
from pathlib import Path

from llm_backend.model_files import (
    HeaderError,
    ModelFileMissing,
    find_projector_file,
    projector_shape,
    read_header,
)
from llm_backend.settings import Settings, SettingsError


@dataclass(frozen=True, kw_only=True)
class NamedProjector:
    """A projector's file, and the input modalities besides text, in OpenAI's words."""

    path: Path
    modalities: tuple[str, ...]


def find_projector(settings: Settings, name: str | None) -> NamedProjector | None:
    """Returns the projector of a model's entry. Raises `SettingsError` for an invalid file."""
    if name is None:
        return None
    try:
        path = find_projector_file(name, settings.models_folder)
        shape = projector_shape(read_header(path))
    except ModelFileMissing as error:
        raise SettingsError(str(error)) from error
    except HeaderError as error:
        raise SettingsError(f"The projector {name} cannot be used: {error}") from error
    senses = (("image", shape.has_vision), ("audio", shape.has_audio))
    return NamedProjector(path=path, modalities=tuple(name for name, has in senses if has))
