"""`llm-backend serve`: settings from flags, environment and file, then the server."""

import json
from pathlib import Path
from typing import Any

from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import Config
from llm_backend.cli.setting_flags import settings_from_flags, with_setting_flags
from llm_backend.extras import install_command, is_installed
from llm_backend.installation import port_command
from llm_backend.settings import BUILTIN, Settings, SettingsSource
from llm_backend.settings.model_entry import ModelSettings

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # with the host for clients


class Serve(Exception):
    """Raised to leave the command line of `serve` before serving, so that its flags (3 MB) are
    freed; `run` then serves."""

    def __init__(self, settings: Settings, source: SettingsSource) -> None:
        super().__init__()
        self._settings, self._source = settings, source

    def run(self) -> None:
        """Serve until the server is stopped."""
        from llm_backend.server import CannotServe, serve

        try:
            serve(self._settings, lambda *state: _announce(self._settings, *state), self._source)
        except CannotServe as error:
            exit_with_error(str(error))


@with_setting_flags
def serve(config: Config = None, **flags: Any) -> None:
    """Serve the API.

    Every setting is a flag, an environment variable and a key of the config file; the flag
    overrides the others.
    """
    source = SettingsSource(flags=settings_from_flags(flags), file=config)
    raise Serve(source.load(), source)


def _announce(settings: Settings, address: str, requires_key: bool) -> None:
    if settings.host in _EVERYWHERE:
        print(f"Listening on all addresses of this machine, port {settings.port}.")
        address = address.replace(settings.host, _EVERYWHERE[settings.host])
    base_url = f"{address}/v1"
    model = next((_name(model) for model in settings.models), None)
    print(f"Serving on {address}  (base URL for clients: {base_url})")
    if settings.port == Settings.model_fields["port"].default:
        print(f"Another port: {port_command()}")
    print(f"Data folder: {settings.data_dir}")
    if settings.database_url is not None:
        print(f"Database: {settings.public_database_url}")
    if model is None and not is_installed("local"):
        print(f"Local models: none, as their engine is missing; {install_command('local')} adds it")
    if model is not None:
        message = {"role": "user", "content": "Who are you?"}
        body = json.dumps({"model": model, "messages": [message]})
        print(f"Try: curl {base_url}/chat/completions \\")
        if requires_key:
            print("       -H 'authorization: Bearer YOUR_KEY' \\")
        print(f"       -H 'content-type: application/json' -d '{body}'")
    print(end="", flush=True)


def _name(model: str | ModelSettings) -> str:
    entry = ModelSettings.model_validate({"path": model}) if isinstance(model, str) else model
    return entry.id or (BUILTIN if entry.path == BUILTIN else Path(entry.path).stem)
