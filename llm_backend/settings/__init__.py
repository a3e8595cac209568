"""One frozen `Settings`: flags over environment over config file over defaults.

A value that cannot be used ends the start with one sentence (`SettingsError`), never with a silent
default.
"""

from llm_backend.settings.environment import environment_with
from llm_backend.settings.kinds import PREFIX
from llm_backend.settings.loading import (
    SettingsSource,
    load_settings,
    settings_as_json,
    settings_from_json,
)
from llm_backend.settings.local_models import BUILTIN, NO_MODEL
from llm_backend.settings.markdown import configuration_markdown
from llm_backend.settings.sentences import SettingsError
from llm_backend.settings.settings import MATTERS, Settings

__all__ = [
    "BUILTIN",
    "MATTERS",
    "NO_MODEL",
    "PREFIX",
    "Settings",
    "SettingsError",
    "SettingsSource",
    "configuration_markdown",
    "environment_with",
    "load_settings",
    "settings_as_json",
    "settings_from_json",
]
