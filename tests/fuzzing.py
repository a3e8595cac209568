"""Report of `make fuzz`: numbers of cases, and failing cases.

The findings of each test are written to a file of `tests/finds/`, which git keeps until the defect
is fixed and the case is an explicit example of a test.
"""

import re
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis.statistics import collector

__all__ = ["CASES", "Fuzzing"]

CASES = "cases"  # the property in which a test tells how many it tried, where it counts them itself
_FINDS = Path(__file__).parent / "finds"


class Fuzzing:
    """A plugin of pytest that counts the cases of each test and keeps what failed."""

    def __init__(self, finds: Path = _FINDS) -> None:
        self._folder = finds
        self._cases: Counter[str] = Counter()
        self._finds: list[Path] = []

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Counts the cases of Hypothesis, within its own plugin, which makes texts of them."""

        def count(statistics: Mapping[str, Any]) -> None:
            phases = [value for name, value in statistics.items() if name.endswith("-phase")]
            self._cases[item.nodeid] += sum(len(phase["test-cases"]) for phase in phases)

        with collector.with_value(count):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts what the test counted, and keeps what it found."""
        if report.when == "call":
            self._cases[report.nodeid] += sum(
                int(number) for name, number in report.user_properties if name == CASES
            )
        if report.failed:
            self._folder.mkdir(exist_ok=True)
            file = self._folder / (re.sub(r"\W+", "-", report.nodeid)[-120:].strip("-") + ".txt")
            file.write_text(f"{report.nodeid}\n\n{report.longreprtext}\n", encoding="utf-8")
            self._finds.append(file)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says the figures of the run."""
        write = terminalreporter.write_line
        terminalreporter.section("fuzzing")
        for test, number in self._cases.most_common():
            write(f"{number:9,} {test}")
        write(f"{self._cases.total():9,} cases, {len(self._finds)} tests that found something")
        for file in self._finds:
            write(f"          kept in {file}")
