"""Error messages of settings: one sentence with the setting's name and the remedy."""

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

from llm_backend.settings.kinds import PREFIX


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence with its name and the remedy."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the known name that is most like a wrong one; empty if none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]}?" if close else ""


def describe_error(error: ValidationError) -> str:
    """Describe the first error; the value is shown unless it may be a secret."""
    first = error.errors(include_url=False)[0]
    name = _path(first["loc"]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"The setting `{name}` is unknown."
    secret = first["type"] == "value_error" or any(
        word in name for word in ("key", "url", "headers")
    )
    value = "" if secret else f" (given: {first['input']!r})"
    return f"The setting `{name}` cannot be used: {first['msg']}{value}."


def _path(location: tuple[int | str, ...]) -> str:
    """Format a path like `models[0].slots`, without the names of union members."""
    name = str(location[0]).removeprefix(PREFIX).lower()
    for step in location[1:]:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step not in ("", "entry", "str", "ChatTurnFrames", "AdapterSettings"):
            name += f".{step}"
    return name
