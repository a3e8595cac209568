"""Journal of `make fuzz`: how many cases were tried, of what kind and of which test or operation.

Several processes append lines to one file while they run: a number, a kind and a name, or `done`
and the name of a finished test.
"""

import re
import time
from collections import Counter
from pathlib import Path

_EVERY_S = 30.0  # interval of writes: an interruption loses the cases since the last
_DONE = "done"


class CaseJournal:
    """Counts cases, and appends the counts to the file every half minute."""

    def __init__(self, file: Path, every_s: float = _EVERY_S) -> None:
        self._file = file
        self._every_s = every_s
        self._unwritten: Counter[tuple[str, str]] = Counter()
        self._written_at = time.monotonic()

    def clear(self) -> None:
        """Forgets the runs before this one."""
        self._file.unlink(missing_ok=True)

    def count(self, kind: str, name: str, number: int = 1) -> None:
        """Adds cases of a test or an operation."""
        self._unwritten[kind, name] += number
        if time.monotonic() - self._written_at > self._every_s:
            self.flush()

    def finish(self, name: str) -> None:
        """Records that a test has tried all its cases."""
        self.flush()
        self._append([f"{_DONE}\t{name}"])

    def flush(self) -> None:
        """Appends what was counted."""
        self._append(
            [f"{number}\t{kind}\t{name}" for (kind, name), number in self._unwritten.items()]
        )
        self._unwritten.clear()
        self._written_at = time.monotonic()

    def counts(self) -> Counter[tuple[str, str]]:
        """Cases by kind and name that stand in the file, of all processes."""
        counts: Counter[tuple[str, str]] = Counter()
        for line in self._lines():
            if line[0] != _DONE:
                counts[line[1], line[2]] += int(line[0])
        return counts

    def latest(self) -> str:
        """Test or operation whose cases were counted last."""
        return next((line[-1] for line in reversed(self._lines())), "nothing")

    def finished(self) -> set[str]:
        """Tests that have tried all their cases."""
        return {line[1] for line in self._lines() if line[0] == _DONE}

    def _lines(self) -> list[list[str]]:
        if not self._file.exists():
            return []
        return [line.split("\t") for line in self._file.read_text(encoding="utf-8").splitlines()]

    def _append(self, lines: list[str]) -> None:
        if lines:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in lines))


def keep_find(folder: Path, name: str, text: str, *, replace: bool = True) -> None:
    """Writes a failing case to a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (re.sub(r"\W+", "-", name)[-120:].strip("-") + ".txt")
    if replace or not file.exists():
        file.write_text(f"{name}\n\n{text}\n", encoding="utf-8", errors="backslashreplace")
