"""The environment of this process, read here and by pydantic's own source of settings only."""

import os
from collections.abc import Iterator, Mapping

__all__ = ["environment_with", "variable", "variables_named"]


def variable(name: str) -> str | None:
    """What one variable holds; None where it is unset or empty."""
    return os.environ.get(name) or None


def variables_named(prefix: str) -> Iterator[str]:
    """The names of variables that begin with `prefix`, in capitals or not, and are not empty."""
    return (name for name in os.environ if name.upper().startswith(prefix) and os.environ[name])


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `more`, for a process that it starts."""
    return {**os.environ, **more}
