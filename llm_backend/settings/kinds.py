"""Types of settings that several groups use, and a setting's names in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr

from llm_backend.unused_imports import block_imports

# The command line of pydantic's settings, and the argparse under it, are not needed.
_COMMAND_LINE = (
    "CLI_SUPPRESS", "CliDualFlag", "CliExplicitFlag", "CliImplicitFlag",
    "CliMutuallyExclusiveGroup", "CliPositionalArg", "CliSettingsSource", "CliSubCommand",
    "CliSuppress", "CliToggleFlag", "CliUnknownArgs", "CliVariadicArg",
)  # fmt: skip
with block_imports(
    argparse=("Namespace",), pydantic_settings__sources__providers__cli=_COMMAND_LINE
):
    from pydantic_settings import NoDecode

PREFIX = "LLM_BACKEND_"

_EMPTY = "it is empty; give it a value or leave it out"


def split_commas(value: object) -> object:
    """Splits comma-separated text; other values are returned unchanged. Raises `ValueError` for a
    blank text."""
    if not isinstance(value, str):
        return value
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    if not words:
        raise ValueError(_EMPTY)
    return words


def _absolute(path: Path | None) -> Path | None:
    return path and path.expanduser().absolute()


def require_text(value: object) -> object:
    """Returns the value unchanged. Raises `ValueError` for an empty text."""
    if value == "":
        raise ValueError(_EMPTY)
    return value


def _not_blank(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError(_EMPTY)
    return secret


NonEmptyText = Annotated[str, Field(min_length=1)]

PublicUrl = Annotated[
    str, Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$"), AfterValidator(lambda url: url.rstrip("/"))
]
"""An address to which paths are appended, without a slash at its end."""

Names = Annotated[tuple[NonEmptyText, ...], NoDecode, BeforeValidator(split_commas)]
"""A list; comma-separated in the environment."""

Secret = Annotated[SecretStr, AfterValidator(_not_blank)]
"""A key or password: never logged or printed, and not blank."""

Secrets = Annotated[tuple[Secret, ...], NoDecode, BeforeValidator(split_commas)]
"""A list of secrets; comma-separated in the environment."""

OptionalPath = Annotated[Path | None, AfterValidator(_absolute)]
"""A path or None; `~` is the home of the user that starts the server."""


def environment_names(name: str, *others: str) -> AliasChoices:
    """Returns a field's names in the environment: our own first, then established ones."""
    return AliasChoices(PREFIX + name.upper(), *others)
