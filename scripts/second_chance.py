"""Runs the tests, and the few that fail once more.

    python scripts/second_chance.py REPORT [arguments of pytest]

Among thousands of tests with sockets, processes and clocks there is one now and then that fails by
chance. That must neither cost the whole run nor be hidden: what failed is run again, alone and in a
fresh process, has to pass there, and is named in the file REPORT, for whoever ends the run to show.

Nothing else gets a second chance: not more than five failures, no error of collection, no
interpreter that died, and no test that fails twice. The exit status is pytest's.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_BY_CHANCE = 5  # failures at most: more of them have a cause in common
_TESTS_FAILED = 1  # of pytest's exit statuses the one that is about tests alone


def main(report: Path, arguments: list[str]) -> int:
    """The exit status of the last run."""
    with tempfile.TemporaryDirectory() as cache:
        status = _run(cache, arguments)
        failed = _failed(cache)
        if status != _TESTS_FAILED or not 0 < len(failed) <= _BY_CHANCE:
            return status
        print(f"{len(failed)} failed; once more, alone:", flush=True)
        again = ["--last-failed", "--last-failed-no-failures=none"]
        status = _run(cache, [*arguments, *again])
    if status == 0:
        _tell(report, failed)
    return status


def _run(cache: str, arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    return abs(subprocess.run(command, check=False).returncode)


def _failed(cache: str) -> list[str]:
    """The tests that pytest remembers as failed, if it came to that."""
    remembered = Path(cache) / "v/cache/lastfailed"
    return sorted(json.loads(remembered.read_text())) if remembered.exists() else []


def _tell(report: Path, failed: list[str]) -> None:
    with report.open("a") as file:
        print("FAILED AT FIRST, and passed when run once more, alone:", file=file)
        for test in failed:
            print(f"  {test}", file=file)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
