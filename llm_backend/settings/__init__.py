"""Frozen `Settings` from flags, environment, config file and defaults, in this order.

A value that cannot be used ends the start with one sentence (`SettingsError`), never with a silent
default.

settings.py     all settings in one class; each group has a module: listening.py, access.py,
                local_models.py, upstreams.py, state.py, search.py, responses.py, realtime.py,
                audio.py, images.py, webhooks.py, bounds.py, observability.py
model_entry.py  a model in the config file
upstream_entry.py  an upstream in the config file
kinds.py        types of values that several groups have
loading.py      sources of the settings, their order, and error messages
environment.py  the environment of this process
markdown.py     the text of `docs/configuration.md`
"""

from llm_backend.settings.environment import environment_with
from llm_backend.settings.kinds import PREFIX
from llm_backend.settings.loading import (
    SettingsError,
    SettingsSource,
    load_settings,
    settings_as_json,
    settings_from_json,
)
from llm_backend.settings.local_models import BUILTIN, NO_MODEL
from llm_backend.settings.markdown import configuration_markdown
from llm_backend.settings.settings import SETTING_GROUPS, Settings

__all__ = [
    "BUILTIN",
    "NO_MODEL",
    "PREFIX",
    "SETTING_GROUPS",
    "Settings",
    "SettingsError",
    "SettingsSource",
    "configuration_markdown",
    "environment_with",
    "load_settings",
    "settings_as_json",
    "settings_from_json",
]
