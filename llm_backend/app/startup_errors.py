"""Errors of the application's start."""

from collections.abc import Iterator
from contextlib import contextmanager

from llm_backend.contract import ContractMissing
from llm_backend.settings import SettingsError
from llm_backend.store import StoreError


class CannotStart(Exception):
    """The application cannot be opened; the message is one sentence that says what to do."""


@contextmanager
def translate_startup_errors() -> Iterator[None]:
    """Raises errors that need the operator as `CannotStart`."""
    try:
        yield
    except (SettingsError, StoreError, ContractMissing, OSError) as error:
        raise CannotStart(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        path = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{path}."
    return str(error)
