"""The suite tries the same examples in every run; what fuzzing finds is counted and kept."""

import os
import subprocess
import sys
from pathlib import Path

from tests.case_journal import CaseJournal
from tests.live.refused_fields import drop_refused_fields

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
import os

from hypothesis import given
from hypothesis import strategies as st


@given(st.integers())
def test_that_fails(number):
    assert number < 1000


@given(st.integers())
def test_that_ends_the_process(number):
    if os.environ["RUN"] == "first":
        os._exit(9)
"""
CONFTEST = """
import os
from pathlib import Path

from tests.case_journal import CaseJournal
from tests.examples import use_profile
from tests.fuzzing import Fuzzing


def pytest_configure(config):
    use_profile(50)
    journal = CaseJournal(Path("cases.txt"), every_s=0)
    resume = os.environ["RUN"] == "continued"
    config.pluginmanager.register(Fuzzing(finds=Path("finds"), journal=journal, resume=resume))
"""


def run(
    folder: Path, *arguments: str, hash_seed: str, **named: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed, **named}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_examples_are_the_same_with_any_imports(tmp_path):
    (tmp_path / "alone.py").write_text(PROPERTY)
    (tmp_path / "constants.py").write_text(f"NUMBERS = {[*range(1_000_000, 1_001_000)]}")
    (tmp_path / "beside_others.py").write_text("import constants\nimport alone\n")
    alone = run(tmp_path, "alone.py", hash_seed="1")
    others = run(tmp_path, "beside_others.py", hash_seed="2")

    assert alone.returncode == others.returncode == 0, alone.stderr + others.stderr
    assert len(alone.stdout.splitlines()) >= 100
    assert others.stdout == alone.stdout


def test_refused_fields_are_dropped_until_the_server_accepts_the_body():
    body = {"": 1, "model": "x", "messages": [1, 2], "tools": [{}, {"a": "\0"}], "top_p": 1}
    refused = iter([{"param": ""}, {"param": "model"}, {"param": "tools[1].a"},
                    {"param": "messages"}, {"param": "messages"}, {"param": "messages"},
                    None])  # fmt: skip

    drop_refused_fields(body, lambda _body: next(refused))

    accepted = {"model": "builtin", "messages": [{"role": "user", "content": "Hi"}]}
    assert body == {**accepted, "tools": [{}], "top_p": 1}
    assert next(refused, "no more") == "no more"


def test_fuzzing_keeps_counts_and_finds_of_an_interrupted_run_and_continues(tmp_path):
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    arguments = ("-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "test_it.py")
    first = run(tmp_path, *arguments, hash_seed="0", RUN="first")
    (find,) = (tmp_path / "finds").iterdir()
    counted = CaseJournal(tmp_path / "cases.txt").counts()
    continued = run(tmp_path, *arguments, hash_seed="0", RUN="continued")

    assert first.returncode == 9
    assert find.name == "test_it-py-test_that_fails.txt"
    assert "number=1000" in find.read_text()
    failed, ended = (
        ("property", f"test_it.py::test_that_{it}") for it in ("fails", "ends_the_process")
    )
    assert counted[failed] > 1
    assert counted[ended] == 1
    assert continued.returncode == 0, continued.stdout
    assert "1 passed, 1 deselected" in continued.stdout
    assert f"{counted[failed] + 51:,} cases, 1 finds" in continued.stdout
