"""The folder that several processes share, and what is left of those that were killed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_backend.server.private_folder import private_folder, sweep

KILLED = (
    "import os, signal\n"
    "from llm_backend.server.private_folder import private_folder\n"
    "with private_folder() as folder:\n"
    "    (folder / 'left').touch()\n"
    "    os.kill(os.getpid(), signal.SIGKILL)\n"
)


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """Parent of the folders, with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def test_private_folder_is_private_and_removed_at_the_end(temporary):
    with private_folder() as folder:
        mode = folder.stat().st_mode & 0o777
        assert list(temporary.iterdir()) == [folder]

    assert mode == 0o700
    assert not list(temporary.iterdir())


def test_private_folder_of_a_killed_owner_is_swept_at_the_next_start(temporary):
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = temporary.iterdir()
    with private_folder() as folder:
        found = list(temporary.iterdir())

    assert killed.returncode < 0
    assert left != folder
    assert found == [folder]


def test_private_folder_sweep_keeps_locked_and_foreign_folders(temporary):
    foreign = temporary / "llm-backend-foreign"
    foreign.mkdir(mode=0o700)
    (foreign / "file").touch()
    os.utime(foreign, (0, 0))
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.lock").touch()
    os.symlink(elsewhere, temporary / "llm-backend-link")
    with private_folder() as one, private_folder() as other:
        assert one.is_dir()
        assert other.is_dir()

    assert (elsewhere / "owner.lock").exists()
    assert (temporary / "llm-backend-foreign").is_dir()


@pytest.mark.parametrize("files", [[], ["owner.lock.new"]])
def test_private_folder_that_was_never_locked_is_swept_when_it_is_old(temporary, files):
    folder = temporary / "llm-backend-early"
    folder.mkdir(mode=0o700)
    for name in files:
        (folder / name).touch()
    sweep()
    assert folder.is_dir()
    os.utime(folder, (0, 0))

    sweep()
    assert not folder.exists()


def test_private_folder_path_is_short_enough_for_sockets(temporary, monkeypatch):
    long = temporary / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    with private_folder() as folder:
        assert folder.parent == Path("/tmp")
    assert not list(long.iterdir())


def test_private_folders_of_killed_servers_are_swept_by_a_single_process(temporary):
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert len(list(temporary.iterdir())) == 1

    sweep()
    assert not list(temporary.iterdir())
