"""Kinds of values that several matters have, and a setting's names in the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

__all__ = ["PREFIX", "MaybePath", "Names", "Secrets", "also", "words"]

PREFIX = "LLM_BACKEND_"


def words(given: object) -> object:
    """Comma-separated words as a list; what is no text as it is."""
    if not isinstance(given, str):
        return given
    return tuple(word.strip() for word in given.split(",") if word.strip())


def _absolute(given: Path | None) -> Path | None:
    return given and given.expanduser().absolute()


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(words)]
"""A list that the environment gives as comma-separated words."""

Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(words)]
"""Such a list that is shown to nobody."""

MaybePath = Annotated[Path | None, AfterValidator(_absolute)]
"""A path, in which `~` is the home of whoever starts the server."""


def also(name: str, *others: str) -> AliasChoices:
    """A field's names in the environment: ours first, then those that its users know already."""
    return AliasChoices(PREFIX + name.upper(), *others)
