"""The built-in model, loaded once for all tests of it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# `models/` is tooling beside the package, so it is importable only from the root of the project.
sys.path.insert(0, str(Path(__file__).parents[2]))

from llm_backend.builtin import BUILTIN_PATH
from models.builtin.evaluate import Asker
from models.builtin.facts import Knowledge, read_knowledge


@pytest.fixture(scope="session")
def asker() -> Iterator[Asker]:
    asker = Asker(BUILTIN_PATH)
    yield asker
    asker.close()


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    return read_knowledge()
