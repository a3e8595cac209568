"""Skips tests for programs that a machine lacks."""

import os
from typing import NoReturn

import pytest

__all__ = ["missing"]


def missing(what: str) -> NoReturn:
    """Skips the test; `what` names the missing program and how to install it.

    With the variable `CI` the test fails instead.
    """
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
