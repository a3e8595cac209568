"""Systemd unit, completion and manual page: texts for the system around the program."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.cli.reference import commands_of, parameter_name
from llm_backend.cli.systemd import systemd_unit
from tests.missing import missing

PROGRAM = Path("/usr/bin/true")  # `systemd-analyze` wants one that exists


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def analyze(unit: Path, *words: str) -> subprocess.CompletedProcess[str]:
    if (program := shutil.which("systemd-analyze")) is None:
        missing("systemd-analyze is not installed: sh scripts/install_test_tools.sh")
    return subprocess.run(
        [program, *words, str(unit)], capture_output=True, text=True, check=False
    )  # fmt: skip


def test_systemd_unit_is_valid_and_hardened(tmp_path):
    unit = tmp_path / "llm-backend.service"
    unit.write_text(systemd_unit(PROGRAM))

    verified = analyze(unit, "verify")
    secure = analyze(unit, "security", "--offline=yes", "--threshold=20")  # 2.0

    assert (verified.returncode, verified.stderr) == (0, "")
    assert secure.returncode == 0, secure.stdout + secure.stderr


def test_systemd_unit_runs_the_named_program_with_its_config():
    unit = run("systemd", "--program", "/opt/a b/llm-backend", "--config", "/etc/llm.yaml")

    assert "ExecStart='/opt/a b/llm-backend' serve --config /etc/llm.yaml\n" in unit


def test_systemd_refuses_a_program_that_a_service_cannot_read():
    result = CliRunner().invoke(app, ["systemd", "--program", "/home/me/bin/llm-backend"])

    assert result.exit_code == 1
    assert "/home/me/bin/llm-backend, because it lies in a home folder" in result.stderr


def test_bash_completes_commands_and_flags():
    script = f"""{run("completion", "bash")}
    complete_words() {{
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _llm_backend_completion llm-backend; echo "${{COMPREPLY[*]}}"
    }}
    complete_words llm-backend mod
    complete_words llm-backend serve --mlo"""
    folder = Path(sys.executable).parent
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", script],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["models", "--mlock"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_scripts_of_other_shells_run_the_program(shell):
    assert f"_LLM_BACKEND_COMPLETE=complete_{shell}" in run("completion", shell)


def test_manual_page_has_every_command_and_flag():
    page = run("manual").replace("\\-", "-")

    for name, command in commands_of(app):
        assert f".SS {name}" in page
        for one in command.params:
            assert f".B {parameter_name(one)}\n" in page
    requests = {line.split()[0] for line in page.splitlines() if line[:1] in (".", "'")}
    assert requests == {".TH", ".SH", ".SS", ".PP", ".TP", ".B"}


def test_operations_are_listed_in_80_columns_without_a_cut_name():
    listed = CliRunner().invoke(app, ["operations"], env={"COLUMNS": "80"}).stdout

    assert max(map(len, listed.splitlines())) <= 80
    assert "…" not in listed
    assert "local audio.speech" in listed


def test_empty_name_of_the_config_file_is_unset_as_an_empty_variable_is():
    assert "--config" not in run("systemd", "--program", "/opt/llm-backend", "--config", "")
