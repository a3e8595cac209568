"""What a machine may lack."""

import os
from typing import NoReturn

import pytest

__all__ = ["missing"]


def missing(what: str) -> NoReturn:
    """Skips the test, saying `what` it needs and how that is had. Where the variable `CI` is set
    nothing may be skipped: there it fails.
    """
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
