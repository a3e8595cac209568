"""Types of settings that several groups use, and a setting's names in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr

from llm_backend.home_folder import expand_home
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


def _absolute(path: Path) -> Path:
    expanded = expand_home(path)
    if expanded.parts[:1] and expanded.parts[0].startswith("~"):
        raise ValueError(f"there is no user whose home folder is {expanded.parts[0]}")
    return expanded.absolute()


def require_text(value: object) -> object:
    """Returns the value unchanged. Raises `ValueError` for an empty text."""
    if value == "":
        raise ValueError(_EMPTY)
    return value


def _one_line(secret: SecretStr) -> SecretStr:
    """Returns the secret without the line break that files and `echo` add, and other blanks at its
    ends. Raises `ValueError` if it is blank, or holds what no header can."""
    text = _header_value(secret)
    if not text.get_secret_value():
        raise ValueError(_EMPTY)
    return text


def _header_value(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value().strip()
    if not text.replace("\t", "").isprintable():
        raise ValueError("it holds a control character, such as a line break")
    return SecretStr(text)


NonEmptyText = Annotated[str, Field(min_length=1)]

PublicUrl = Annotated[
    str, Field(pattern=r"^https?://[^/?#\s]+[^?#\s]*$"), AfterValidator(lambda url: url.rstrip("/"))
]
"""An address to which paths are appended, without a slash at its end."""

Names = Annotated[tuple[NonEmptyText, ...], NoDecode, BeforeValidator(split_commas)]
"""A list; comma-separated in the environment."""

Secret = Annotated[SecretStr, AfterValidator(_one_line)]
"""A key or password: never logged or printed, not blank, and of one line."""

HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
"""A value of a header, which may be empty."""

Secrets = Annotated[tuple[Secret, ...], NoDecode, BeforeValidator(split_commas)]
"""A list of secrets; comma-separated in the environment."""

AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""A path; `~` is the home of the user that starts the server."""


def environment_names(name: str, *others: str) -> AliasChoices:
    """Returns a field's names in the environment: our own first, then established ones."""
    return AliasChoices(PREFIX + name.upper(), *others)
