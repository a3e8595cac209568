"""Installs a lock file into this environment, with a bar in place of pip's many lines.

    python -m scripts.pip_install LOCK [PIP OPTIONS]

Runs before anything is installed: standard library only.
"""

import re
import subprocess
import sys
from pathlib import Path

from scripts.build_llama import draw_bar, say

STEP = re.compile(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)")


def main() -> int:
    lock, *options = sys.argv[1:]
    total = len(re.findall(r"^\S+==", Path(lock).read_text(), re.MULTILINE))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install",
               "--require-hashes", "-r", lock, *options]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        tail: list[str] = []
        done = 0
        for line in process.stdout:
            tail = [*tail[-39:], line]
            if step := STEP.match(line):
                done += 1
                draw_bar(min(done, total), total, step[1])
            elif line.startswith("Installing collected"):
                draw_bar(total, total, "installing")
    say("")
    if process.returncode:
        say("".join(tail))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
