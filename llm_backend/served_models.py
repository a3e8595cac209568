"""Which local models the settings ask for: their files, names, drafts and tool formats.

Every function raises `SettingsError`, one sentence, for what cannot be served.
"""

import time
from collections.abc import Collection, Mapping
from pathlib import Path

from llm_backend.backends.base import ModelCard
from llm_backend.backends.markup import FAMILIES
from llm_backend.builtin import BUILTIN_DESCRIPTION, BUILTIN_ID, BUILTIN_PATH
from llm_backend.settings import BUILTIN, Settings, SettingsError

__all__ = ["aliases", "check_moderation_model", "draft_models", "model_cards", "tool_formats"]

GGUF_MAGIC = b"GGUF"


def model_cards(settings: Settings) -> dict[ModelCard, Path]:
    """The local models and their files; raises `SettingsError` for a file that is none."""
    cards: dict[ModelCard, Path] = {}
    for given in settings.models:
        is_builtin = given == BUILTIN
        path = BUILTIN_PATH if is_builtin else Path(given).expanduser()
        name = BUILTIN_ID if is_builtin else path.stem
        if name in {card.id for card in cards}:
            raise SettingsError(f"Two models are named `{name}`; rename one of their files.")
        _check_model_file(path)
        cards[_card(name, path, BUILTIN_DESCRIPTION if is_builtin else None)] = path
    return cards


def _card(name: str, path: Path, description: str | None) -> ModelCard:
    created_at = int(min(path.stat().st_mtime, time.time()))
    more = (("description", description),) if description else ()
    return ModelCard(id=name, created_at=created_at, owned_by="llm-backend", more=more)


def _check_model_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise SettingsError(f"Cannot read the model {path}: {error.strerror}.") from error
    if magic != GGUF_MAGIC:
        raise SettingsError(f"{path} is not a GGUF file; convert the model or name another.")


def aliases(settings: Settings, models: list[str]) -> Mapping[str, str]:
    """The further names of models, each with the model that it is of."""
    named: dict[str, str] = {}
    for given in settings.aliases:
        name, _, model = given.partition("=")
        model = model or next(iter(models), "")
        if model not in models:
            raise SettingsError(
                f"The alias `{name}` is for `{model}`, which is not served; "
                f"there is {', '.join(models) or 'no local model'}."
            )
        if name in models or name in named:
            raise SettingsError(f"The alias `{name}` is taken; every name is one model's.")
        named[name] = model
    return named


def tool_formats(settings: Settings, models: list[str]) -> Mapping[str, str]:
    """The formats of tool calls that are named, by model."""
    formats: dict[str, str] = {}
    for given in settings.tool_formats:
        model, _, name = given.rpartition("=")
        if model and model not in models:
            raise SettingsError(f"The tool format `{given}` is for a model that is not served.")
        if name not in FAMILIES:
            raise SettingsError(
                f"The tool format `{name}` is not known; there are {', '.join(FAMILIES)}."
            )
        formats |= dict.fromkeys([model] if model else models, name)
    return formats


def draft_models(settings: Settings, models: list[str]) -> Mapping[str, Path]:
    """The files of draft models, by the model that they draft for."""
    drafts: dict[str, Path] = {}
    for given in settings.draft_models:
        model, _, file = given.rpartition("=")
        model = model or next(iter(models), "")
        if model not in models:
            raise SettingsError(f"The draft model `{given}` is for a model that is not served.")
        if model in drafts:
            raise SettingsError(f"The model `{model}` has two draft models; it can use one.")
        if not settings.speculation:
            raise SettingsError(f"The draft model `{given}` needs `speculation`, which is off.")
        drafts[model] = Path(file).expanduser()
        _check_model_file(drafts[model])
    return drafts


def check_moderation_model(settings: Settings, names: Collection[str]) -> None:
    """Raises for a moderation model whose name or alias is none of `names`."""
    name = settings.moderation_model
    if name is not None and name not in names:
        raise SettingsError(f"The moderation model `{name}` is not served.")
