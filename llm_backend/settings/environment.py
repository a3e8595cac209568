"""The environment of this process, read only here and by pydantic's own source of settings."""

import os
from collections.abc import Iterator, Mapping


def variable(name: str) -> str | None:
    """Returns the value of one variable; None if it is unset or empty."""
    return os.environ.get(name) or None


def variables_named(prefix: str) -> Iterator[str]:
    """Returns names of non-empty variables that begin with `prefix`, in any case."""
    return (name for name in os.environ if name.upper().startswith(prefix) and os.environ[name])


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """Returns this process's environment updated by `more`, for a child process."""
    return {**os.environ, **more}
