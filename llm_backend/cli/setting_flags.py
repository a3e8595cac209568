"""Flags of `llm-backend serve`, generated from the settings with their names and descriptions.

Secrets have no flag, since other users of the machine can read command lines. Nested settings have
no flag either: they belong in the config file.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from llm_backend.cli.exit import exit_with_error
from llm_backend.settings import NO_MODEL, SETTING_GROUPS

_SINGULAR = {"aliases": "alias"}


def _kind(annotation: Any) -> type | None:  # Any: an annotation may be anything
    """Return the type of a flag: bool, list of texts, or text; None if there is no flag."""
    kinds = {one for one in (annotation, *get_args(annotation)) if one is not NoneType}
    if SecretStr.__name__ in str(annotation) or get_origin(annotation) in (dict, Mapping):
        return None
    if bool in kinds:
        return bool
    if get_origin(annotation) is not tuple:
        return str
    item = str(get_args(annotation)[0])
    if "float" in item:
        return str  # numbers separated by commas
    return list if re.search(r"\bstr\b", item) else None


def _flag(name: str, kind: type) -> str:
    word = name.replace("_", "-")
    if kind is bool:
        return f"--{word}/--no-{word}"
    if kind is list:
        word = _SINGULAR.get(name, name.removesuffix("s")).replace("_", "-")
    return f"--{word}"


def _parameter(name: str, kind: type, field: FieldInfo, group: str) -> inspect.Parameter:
    value_type: Any = list[str] if kind is list else kind
    more = " May be repeated." if kind is list else ""
    option = typer.Option(
        _flag(name, kind),
        help=f"{field.description}{more}",
        metavar=None if kind is bool else name.split("_")[-1].upper(),
        show_default=_default(field, kind),
        rich_help_panel=group,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[value_type | None, option],
    )


def _default(field: FieldInfo, kind: type) -> str | bool:
    """Return the default as the help prints it; False if there is none."""
    default = field.get_default()
    if kind is bool and default is not None:
        return "yes" if default else "no"
    return str(default) if isinstance(default, str | int | float) else False


SETTING_FLAGS: Mapping[str, inspect.Parameter] = {
    name: _parameter(name, kind, field, title)
    for title, group in SETTING_GROUPS.items()
    for name, field in group.model_fields.items()
    if (kind := _kind(field.annotation)) is not None
}
"""The flag of each setting that has one."""


def with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Add a parameter for each flag to the command's signature."""
    own = [
        one
        for one in inspect.signature(command).parameters.values()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [*own, *SETTING_FLAGS.values()]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # it has one
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def settings_from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by name; None for a flag that was not given.

    Exits with status 2 if a flag's text is empty.
    """
    for name, value in flags.items():
        if value == "" or (isinstance(value, list) and "" in value):
            flag = _flag(name, type(value))
            exit_with_error(f"The flag {flag} is empty: give it a value or leave it out.", status=2)
    return {
        name: [word for word in value if word != NO_MODEL] if isinstance(value, list) else value
        for name, value in flags.items()
    }
