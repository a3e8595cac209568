"""Settings with a value for each local model, `NAME=VALUE`, and the projectors of model entries.
A value without a name is for the first model, or for all.

Every function raises `SettingsError`, one sentence, for a name that no served model has, or for a
file that cannot be used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_backend.backends.local.markup import FAMILIES
from llm_backend.backends.speech import BUILTIN_VOICE
from llm_backend.extras import missing_engine_hint
from llm_backend.home_folder import expand_home
from llm_backend.model_files import (
    HeaderError,
    ModelFileMissing,
    find_projector_file,
    projector_media,
    read_header,
)
from llm_backend.settings import Settings, SettingsError


def aliases(settings: Settings, models: Sequence[str]) -> Mapping[str, str]:
    """Returns the aliases of local models, each with its model."""
    named: dict[str, str] = {}
    for flag in settings.aliases:
        name, _, model = flag.partition("=")
        model = model or next(iter(models), "")
        if model == BUILTIN_VOICE:
            continue  # a route
        if model and model not in models and settings.has_upstream:
            continue  # a route to an upstream
        if model not in models:
            raise SettingsError(
                f"The alias `{name}` is for {f'`{model}`' if model else 'the first local model'}, "
                f"which is not served; the local models are: {', '.join(models) or 'none'}."
                f"{missing_engine_hint()}"
            )
        if name in models or name in named:
            raise SettingsError(
                f"The alias `{name}` is taken; every name must belong to one model."
            )
        named[name] = model
    return named


def tool_formats(settings: Settings, models: Sequence[str]) -> Mapping[str, str]:
    """Returns the formats of tool calls, by model."""
    formats: dict[str, str] = {}
    for flag in settings.tool_formats:
        model, _, name = flag.rpartition("=")
        if model and model not in models:
            raise SettingsError(
                f"The tool format `{flag}` is for a model that is not served."
                f"{missing_engine_hint()}"
            )
        check_tool_format(name)
        formats |= dict.fromkeys([model] if model else models, name)
    return formats


def check_tool_format(name: str | None) -> str | None:
    """Returns the name. Raises for a format that no model family has."""
    if name is not None and name not in FAMILIES:
        raise SettingsError(
            f"The tool format `{name}` is unknown; the formats are: {', '.join(FAMILIES)}."
        )
    return name


def draft_models(settings: Settings, models: Sequence[str]) -> Mapping[str, Path]:
    """Returns the files of draft models, by the model that they draft for."""
    drafts: dict[str, Path] = {}
    for flag in settings.draft_models:
        model, _, file = flag.rpartition("=")
        model = model or next(iter(models), "")
        if model not in models:
            raise SettingsError(
                f"The draft model `{flag}` is for a model that is not served."
                f"{missing_engine_hint()}"
            )
        if model in drafts:
            raise SettingsError(f"The model `{model}` has two draft models; it can use one.")
        drafts[model] = expand_home(file)
    return drafts


@dataclass(frozen=True, kw_only=True)
class NamedProjector:
    """A projector's file, and the input modalities besides text, in OpenAI's words. One that
    `speaks` makes audio."""

    path: Path
    modalities: tuple[str, ...]
    speaks: bool


def find_projector(settings: Settings, name: str | None) -> NamedProjector | None:
    """Returns the projector of a model's entry. Raises `SettingsError` for an invalid file."""
    if name is None:
        return None
    try:
        path = find_projector_file(name, settings.models_folder)
        media = projector_media(read_header(path))
    except ModelFileMissing as error:
        raise SettingsError(str(error)) from error
    except HeaderError as error:
        raise SettingsError(f"The projector {name} cannot be used: {error}") from error
    modalities = (("image", media.has_vision), ("audio", media.has_audio))
    return NamedProjector(
        path=path,
        modalities=tuple(name for name, has in modalities if has),
        speaks=media.has_speech,
    )
