"""Commands of hints run where they are read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_backend import installation
from llm_backend.close_names import closest_name, did_you_mean

PROGRAMS = Path(sys.executable).parent


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command by a shell in a folder."""
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder from which the program is not on the PATH."""
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_hints_name_the_program_alone_where_the_path_has_it(monkeypatch):
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.defpath}")

    assert installation.command("keys list") == "llm-backend keys list"
    assert installation.pip() == "pip"


def test_hints_name_the_program_by_its_path_where_the_shell_does_not_find_it(elsewhere):
    shown = run(installation.command("version"), elsewhere)
    pip = run(f"{installation.pip()} --version", elsewhere)

    assert shown.returncode == 0, shown.stderr
    assert pip.stdout.split("from ")[1].startswith(str(PROGRAMS.parent))


def test_hints_of_a_checkout_are_relative_to_its_folder(monkeypatch, elsewhere):
    monkeypatch.chdir(PROGRAMS.parents[1])

    assert installation.command("check") == f"{PROGRAMS.parent.name}/bin/llm-backend check"


def test_hints_name_another_program_of_the_same_name_by_its_path(monkeypatch, elsewhere):
    other = elsewhere / "bin" / "llm-backend"
    other.parent.mkdir()
    shutil.copy(shutil.which("true") or "/bin/true", other)
    monkeypatch.setenv("PATH", f"{other.parent}{os.pathsep}{os.defpath}")

    assert installation.command("check") == f"{PROGRAMS}/llm-backend check"


def test_hints_of_a_checkout_name_make(monkeypatch):
    assert installation.rebuild_command() == installation.reinstall_command() == "make clean run"
    assert 'make run ARGS="--port N"' in installation.port_command()
    monkeypatch.setattr(installation, "_CHECKOUT", Path("/nowhere"))
    assert "install --force-reinstall" in installation.rebuild_command()
    assert installation.reinstall_command().endswith(" llm-backend")
    assert installation.port_command() == "--port N"


def test_a_close_name_is_suggested():
    assert did_you_mean(closest_name("bultin", ("builtin", "other"))) == " Did you mean builtin?"
    assert did_you_mean(closest_name("nothing like it", ("builtin",))) == ""
