"""Kinds of values that several matters have, and a setting's names in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

__all__ = [
    "PREFIX",
    "MaybePath",
    "Names",
    "Secret",
    "Secrets",
    "Word",
    "also",
    "not_empty",
    "words",
]

PREFIX = "LLM_BACKEND_"


def words(given: object) -> object:
    """Comma-separated words as a list; what is no text as it is."""
    if not isinstance(given, str):
        return given
    return tuple(word.strip() for word in given.split(",") if word.strip())


def _absolute(given: Path | None) -> Path | None:
    return given and given.expanduser().absolute()


def not_empty(given: object) -> object:
    """The value itself. Raises `ValueError` for an empty text."""
    if given == "":
        raise ValueError("it is empty; give it a value or leave it out")
    return given


def _not_blank(given: SecretStr) -> SecretStr:
    not_empty(given.get_secret_value().strip())
    return given


Word = Annotated[str, Field(min_length=1)]

Names = Annotated[tuple[Word, ...], NoDecode, BeforeValidator(words)]
"""A list that the environment gives as comma-separated words."""

Secret = Annotated[SecretStr, AfterValidator(_not_blank)]
"""A key or password, which is shown to nobody and is not blank."""

Secrets = Annotated[tuple[Secret, ...], NoDecode, BeforeValidator(words)]
"""Such a list that is shown to nobody."""

MaybePath = Annotated[Path | None, AfterValidator(_absolute)]
"""A path, in which `~` is the home of whoever starts the server."""


def also(name: str, *others: str) -> AliasChoices:
    """A field's names in the environment: ours first, then those that its users know already."""
    return AliasChoices(PREFIX + name.upper(), *others)
