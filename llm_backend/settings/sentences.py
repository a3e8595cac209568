"""What is wrong with a setting, as one sentence that says which and what to do."""

from pydantic import ValidationError

from llm_backend.settings.kinds import PREFIX

__all__ = ["SettingsError", "sentence"]


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence that says which and what to do."""


def sentence(error: ValidationError) -> str:
    """The first thing that is wrong; the value is shown unless it may be a secret."""
    first = error.errors(include_url=False)[0]
    name = _place(first["loc"]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"The setting `{name}` is not known."
    secret = first["type"] == "value_error" or any(
        word in name for word in ("key", "url", "headers")
    )
    value = "" if secret else f" (given: {first['input']!r})"
    return f"The setting `{name}` cannot be used: {first['msg']}{value}."


def _place(location: tuple[int | str, ...]) -> str:
    """`models[0].slots`, without the names of kinds that a value may be of."""
    name = str(location[0]).removeprefix(PREFIX).lower()
    for step in location[1:]:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step not in ("", "entry", "str", "TurnsOfChat", "AdapterSettings"):
            name += f".{step}"
    return name
