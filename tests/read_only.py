"""Prefix of a command that may write into one folder only."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "deploy" / "read_only.sh"


def read_only_but(folder: Path) -> list[str]:
    """Prefix of a command that may write only to this folder."""
    unshare = shutil.which("unshare") or ""
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    prefix = [unshare, "--mount", *rights, "sh", str(SCRIPT), str(folder)]
    tried = f"touch {folder}/here && ! touch {folder.parent}/there 2>/dev/null"
    if not unshare or subprocess.run([*prefix, "sh", "-c", tried], check=False).returncode:
        pytest.skip("This machine allows no mount namespaces.")
    return prefix
