"""The suite tries the same examples in every run; what fuzzing finds is counted and kept."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROPERTY = """
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import use_profile

use_profile(None)


@given(st.lists(st.integers() | st.text() | st.floats()))
def show(values):
    print(repr(values))


show()
"""
SUITE = """

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import CASES


@given(st.integers())
def test_of_hypothesis(number):
    assert number < 1000


def test_that_counts_itself(record_property):
    record_property(CASES, 7)
"""
CONFTEST = """
from pathlib import Path

from tests.examples import use_profile
from tests.fuzzing import Fuzzing


def pytest_configure(config):
    use_profile(50)
    config.pluginmanager.register(Fuzzing(Path("finds")))
"""


def run(folder: Path, *arguments: str, hash_seed: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_whatever_was_imported_the_examples_are_the_same(tmp_path):
    (tmp_path / "alone.py").write_text(PROPERTY)
    (tmp_path / "constants.py").write_text(f"NUMBERS = {[*range(1_000_000, 1_001_000)]}")
    (tmp_path / "beside_others.py").write_text("import constants\nimport alone\n")
    alone = run(tmp_path, "alone.py", hash_seed="1")
    others = run(tmp_path, "beside_others.py", hash_seed="2")

    assert alone.returncode == others.returncode == 0, alone.stderr + others.stderr
    assert len(alone.stdout.splitlines()) >= 100
    assert others.stdout == alone.stdout


def test_fuzzing_tells_how_many_cases_there_were_and_keeps_what_fails(tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    result = run(
        tmp_path,
        "-m",
        "pytest",
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        ".",
        "test_it.py",
        hash_seed="0",
    )

    (find,) = (tmp_path / "finds").iterdir()
    assert result.returncode == 1
    assert "7 test_it.py::test_that_counts_itself" in result.stdout
    assert "1 tests that found something" in result.stdout
    assert find.name == "test_it-py-test_of_hypothesis.txt"
    assert "number=1000" in find.read_text()
