"""Servers whose folder of temporary files is a small disk of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.missing import missing

_MOUNT = 'mount -t tmpfs -o size=1m tmpfs "$TMPDIR" && exec "$@"'


def small_tmp(folder: Path) -> list[str]:
    """Prefix of a command that has this folder, the one of `TMPDIR`, as a disk of a megabyte."""
    unshare = shutil.which("unshare") or ""
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = [unshare, "--mount", *rights, "sh", "-c", _MOUNT, "sh"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    if not unshare or subprocess.run([*prefix, "true"], check=False, env=environment).returncode:
        missing("this machine allows no mount namespaces")
    return prefix


@contextmanager
def filled(folder: Path, pid: int) -> Iterator[None]:
    """Fills this folder, as the process sees it."""
    file = Path(f"/proc/{pid}/root{folder}/filling")
    try:
        with file.open("wb", buffering=0) as filling:
            while True:
                filling.write(bytes(4096))
    except OSError:
        yield
    finally:
        file.unlink()
