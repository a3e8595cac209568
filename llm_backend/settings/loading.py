"""Loading of settings. Flags take precedence over the environment, then the config file, then the
defaults.

The only reader of the config file.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, InitSettingsSource
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from llm_backend.close_names import closest_name, did_you_mean
from llm_backend.settings.environment import variables_named
from llm_backend.settings.kinds import PREFIX
from llm_backend.settings.settings import Settings


def load_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> Settings:
    """Loads the settings of this process. `flags` are by field name; None counts as not given.

    Raises `SettingsError`, one sentence, for a value that cannot be used, an unknown name, or a
    file that cannot be read.
    """
    given_flags = {name: value for name, value in (flags or {}).items() if value is not None}
    from_file = _read_file(config_file) if config_file else {}
    _refuse_unknown_environment()

    flag_source = InitSettingsSource(Settings, given_flags)
    file_source = InitSettingsSource(Settings, from_file)
    sources = (flag_source, EnvSettingsSource(Settings), file_source)  # the first one wins
    try:
        return Settings(_build_sources=(sources, given_flags))
    except ValidationError as error:
        raise SettingsError(describe_error(error)) from error
    except UnreadableVariable as error:
        name = str(error).split('"')[1]
        raise SettingsError(f"The variable of the setting `{name}` holds no JSON.") from error


@dataclass(frozen=True, kw_only=True)
class SettingsSource:
    """The flags and the config file of this process, to load settings again."""

    flags: Mapping[str, Any]
    file: Path | None

    def load(self) -> Settings:
        """Returns the settings as they are now. Raises `SettingsError`."""
        return load_settings(self.flags, self.file)


def settings_as_json(settings: Settings) -> str:
    """Serializes all settings, with keys, for another process of this server."""
    return json.dumps(settings.model_dump(), default=_json_value)


def settings_from_json(text: str) -> Settings:
    """Parses the text of `settings_as_json`; reads neither environment nor file."""
    values = json.loads(text)
    return Settings(_build_sources=((InitSettingsSource(Settings, values),), values))


def _json_value(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


class _UniqueKeysLoader(yaml.SafeLoader):
    """Loads YAML, and refuses a mapping that has the same key twice: the second would replace the
    first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        known = set()
        for key, _ in node.value:
            # other nodes are refused when the mapping is constructed; each `<<` is merged
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in known:
                raise yaml.MarkedYAMLError(
                    None, None, f"`{key.value}` is there twice", key.start_mark
                )
            known.add(key.value)
        return node


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeysLoader) or {}  # noqa: S506 # is safe
    except OSError as error:
        raise SettingsError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"The config file {path} is not YAML: {reason}.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The config file {path} must hold `setting: value` lines.")
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(
                f"The config file {path} holds `{name}`, which is not a setting."
                f"{did_you_mean(closest_name(str(name), Settings.model_fields))}"
            )
    return values


def _refuse_unknown_environment() -> None:
    known_names = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in variables_named(PREFIX):
        if name.upper() not in known_names:
            raise SettingsError(
                f"The environment holds {name}, which is not a setting: unset it."
                f"{did_you_mean(closest_name(name.upper(), known_names))}"
            )


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence with its name and the remedy."""


def describe_error(error: ValidationError) -> str:
    """Describes the first error, with the value unless it is or holds what may be a secret."""
    first = error.errors(include_url=False)[0]
    name = _path(first["loc"]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        close = closest_name(str(first["loc"][-1]), _names_beside(first["loc"]))
        return f"The setting `{name}` is unknown.{did_you_mean(close)}"
    may_be_secret = (
        first["type"] == "value_error"
        or isinstance(first["input"], dict | list | tuple)  # such as an upstream with its key
        or any(word in name for word in ("key", "password", "url", "headers"))
    )
    value = "" if may_be_secret else f" (given: {first['input']!r})"
    reason = first["msg"].removeprefix("Value error, ")
    return f"The setting `{name}` cannot be used: {reason}{value}."


def _names_beside(location: tuple[int | str, ...]) -> set[str]:
    """Returns the valid names at a location whose last step is an unknown name."""
    setting = Settings.model_fields.get(_setting_name(location[0]))
    models = list(_models_in(setting.annotation)) if setting else []
    for step in location[1:-1]:
        fields = [model.model_fields[step] for model in models if step in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
    return {name for model in models for name in model.model_fields}


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """Yields the models in a field's type, such as those of a tuple's entries."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _setting_name(first: int | str) -> str:
    return str(first).removeprefix(PREFIX).lower()


def _path(location: tuple[int | str, ...]) -> str:
    """Formats a path like `models[0].slots`, without the names of union members."""
    name = _setting_name(location[0])
    for step in location[1:]:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step not in ("", "entry", "str", "ChatTurnFrames", "AdapterSettings"):
            name += f".{step}"
    return name
