"""The environment of this process, read here and by pydantic's own source of settings only."""

import os
from collections.abc import Iterator, Mapping

__all__ = ["environment_with", "variable", "variables_named"]


def variable(name: str) -> str | None:
    """What one variable holds; None where it is not set."""
    return os.environ.get(name)


def variables_named(prefix: str) -> Iterator[str]:
    """The names of the variables that begin with `prefix`, in capitals or not."""
    return (name for name in os.environ if name.upper().startswith(prefix))


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `more`, for a process that it starts."""
    return {**os.environ, **more}
