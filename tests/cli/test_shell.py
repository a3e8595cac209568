"""Systemd unit, completion and manual page: texts for the system around the program."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.cli.reference import commands_of, parameter_name
from llm_backend.cli.systemd import systemd_unit
from llm_backend.settings import load_settings
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
    unit.write_text(systemd_unit(load_settings(), PROGRAM))

    verified = analyze(unit, "verify")
    secure = analyze(unit, "security", "--offline=yes", "--threshold=20")  # 2.0

    assert (verified.returncode, verified.stderr) == (0, "")
    assert secure.returncode == 0, secure.stdout + secure.stderr


def test_systemd_unit_runs_the_named_program_with_its_config(tmp_path):
    config = tmp_path / "llm.yaml"
    config.touch()
    unit = run("systemd", "--program", "/opt/a b/llm-backend", "--config", str(config))

    assert f"ExecStart='/opt/a b/llm-backend' serve --config {config}\n" in unit


def test_systemd_waits_for_a_stop_as_long_as_the_config_allows(tmp_path):
    config = tmp_path / "llm.yaml"
    config.write_text("shutdown_delay_s: 5\nshutdown_grace_s: 300\n")

    unit = run("systemd", "--program", "/opt/llm-backend", "--config", str(config))

    assert "TimeoutStopSec=325\n" in unit


@pytest.mark.parametrize("folder", ["/home/me", "/root", "/run/user/1000"])
def test_systemd_refuses_a_program_that_a_service_cannot_read(folder: str):
    result = CliRunner().invoke(app, ["systemd", "--program", f"{folder}/bin/llm-backend"])

    assert result.exit_code == 1
    assert f"{folder}/bin/llm-backend, because it lies in a home folder" in result.stderr


@pytest.mark.parametrize("folder", ["/homelab", "/rootfs", "/run/users"])
def test_systemd_accepts_folders_whose_names_begin_like_a_home_folder(folder: str):
    assert f"ExecStart={folder}/llm-backend" in run("systemd", "--program", f"{folder}/llm-backend")


def test_bash_completes_commands_and_flags():
    script = f"""{run("completion", "bash")}
    complete_words() {{
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _llm_backend_completion llm-backend; echo "${{COMPREPLY[*]}}"
    }}
    complete_words llm-backend mod
    complete_words llm-backend serve --mlo"""
    done = subprocess.run(
        [program("bash"), "-c", script],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.splitlines() == ["models", "--mlock"], done.stderr


def test_fish_completes_commands_and_flags():
    asked = """llm-backend completion fish | source
        complete --do-complete 'llm-backend mod'
        complete --do-complete 'llm-backend serve --mlo'
        complete --do-complete 'llm-backend keys '"""
    done = subprocess.run(
        [program("fish"), "--no-config", "--command", asked],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert offered == ["models", "--mlock", "create", "list", "revoke"], done.stderr


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("llm-backend mod", "llm-backend models "),
        ("llm-backend serve --mlo", "llm-backend serve --mlock "),
    ],
)
def test_zsh_completes_commands_and_flags(typed, completed):
    setup = (
        "autoload -U compinit && compinit -u -D",
        "source <(llm-backend completion zsh)",
        'show() { print -r -- "<$BUFFER>" }; zle -N show; bindkey "^T" show',
        "print REA''DY",
    )
    terminal, other_end = pty.openpty()
    shell = subprocess.Popen(
        [program("zsh"), "-f", "-i"], env={**environment(), "TERM": "dumb"}, start_new_session=True,
        stdin=other_end, stdout=other_end, stderr=other_end,
    )  # fmt: skip
    os.close(other_end)
    try:
        os.write(terminal, f"{'; '.join(setup)}\n".encode())
        read_until(terminal, b"READY\r")
        os.write(terminal, f"{typed}\t\x14".encode())  # Tab, then the line in angle brackets

        shown = read_until(terminal, b">\r")
        assert f"<{completed}>".encode() in shown, shown
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def read_until(terminal: int, end: bytes) -> bytes:
    """Returns what a terminal shows up to and with this text."""
    shown = b""
    while end not in shown:
        shown += os.read(terminal, 65_536)
    return shown


def program(name: str) -> str:
    """The path of a shell."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name} is not installed: sh scripts/install_test_tools.sh")
    return found


def environment() -> dict[str, str]:
    """The environment of a shell in which the program is found."""
    folder = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


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
