"""What fails by chance does not end continuous integration, and is not hidden."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/second_chance.py"

BY_CHANCE = """
import pathlib

def test_that_fails_by_chance():
    seen = pathlib.Path("seen")
    had_failed = seen.exists()
    seen.touch()
    assert had_failed

def test_that_passes():
    with open("runs", "a") as file:
        print("once", file=file)
"""


MANY_FAIL = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    assert False
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    status: int
    runs: int  # of pytest
    report: str


def run(folder: Path, tests: str) -> Run:
    (folder / "test_it.py").write_text(tests)
    report = folder / "report"
    done = subprocess.run(
        [sys.executable, SCRIPT, report, "test_it.py", "-p", "no:faulthandler"],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    return Run(
        status=done.returncode,
        runs=done.stdout.count("test session starts"),
        report=report.read_text() if report.exists() else "",
    )


def test_a_test_that_fails_once_is_named_and_does_not_fail_the_run(tmp_path: Path):
    told = run(tmp_path, BY_CHANCE)

    assert (told.status, told.runs) == (0, 2)
    assert told.report.splitlines()[1:] == ["  test_it.py::test_that_fails_by_chance"]
    assert (tmp_path / "runs").read_text() == "once\n"  # who passed is not run again


@pytest.mark.parametrize(
    ("tests", "status", "runs"),
    [
        ("def test_it(): pass", 0, 1),
        ("def test_it(): assert False", 1, 2),
        (MANY_FAIL, 1, 1),
        ("import nothing_of_this_name", 2, 1),
        ("import os\ndef test_it(): os.abort()", 6, 1),
    ],
    ids=["passes", "fails twice", "too many fail", "cannot be collected", "dies"],
)
def test_nothing_else_gets_a_second_chance(tmp_path: Path, tests: str, status: int, runs: int):
    told = run(tmp_path, tests)

    assert (told.status, told.runs, told.report) == (status, runs, "")
