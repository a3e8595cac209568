"""Plugin of `make fuzz`: counts the cases of each property, and keeps what fails.

The count goes to `build/fuzz/cases.txt` while a test runs, so that an interrupted run has a total
and the next one continues behind it. Findings go to files of `tests/finds/`, which git keeps until
the defect is fixed and the case is an explicit example of a test.
"""

import functools
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis.errors import UnsatisfiedAssumption
from hypothesis.statistics import collector

from tests.case_journal import CaseJournal, keep_find

_ROOT = Path(__file__).parents[1]
FINDS = _ROOT / "tests" / "finds"
JOURNAL = _ROOT / "build" / "fuzz" / "cases.txt"
_PROPERTY = "property"
_PROGRESS_S = 30.0


class Fuzzing:
    """A plugin of pytest that counts the cases of each test and keeps what failed."""

    def __init__(self, *, finds: Path, journal: CaseJournal, resume: bool) -> None:
        self._finds = finds
        self._journal = journal
        if not resume:
            self._journal.clear()

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leaves out the tests that a run before this one has finished."""
        finished = self._journal.finished()
        left_out = [item for item in items if item.nodeid in finished]
        items[:] = [item for item in items if item.nodeid not in finished]
        config.hook.pytest_deselected(items=left_out)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Prints the number of cases every half minute."""
        ended = threading.Event()
        printing = threading.Thread(target=self._print_progress, args=(session.config, ended))
        printing.start()
        try:
            return (yield)
        finally:
            ended.set()
            printing.join()

    def _print_progress(self, config: pytest.Config, ended: threading.Event) -> None:
        terminal = config.pluginmanager.get_plugin("terminalreporter")
        while not ended.wait(_PROGRESS_S):
            total, finds = self._journal.counts().total(), len([*self._finds.glob("*.txt")])
            terminal.ensure_newline()
            terminal.write_line(f"{total:9,} cases, {finds} finds; {self._journal.latest()}")

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Counts the cases of Hypothesis, within its own plugin, which makes texts of them."""
        handle = getattr(getattr(item, "obj", None), "hypothesis", None)
        if handle is not None:
            test = handle.inner_test
            handle.inner_test = self._counted(item.nodeid, test)
            try:
                return (yield)
            finally:
                handle.inner_test = test  # a test with parameters has several items

        def count(statistics: Mapping[str, Any]) -> None:
            """Of a state machine Hypothesis tells the number of runs at the end."""
            phases = [value for name, value in statistics.items() if name.endswith("-phase")]
            cases = sum(len(phase["test-cases"]) for phase in phases)
            self._journal.count(_PROPERTY, item.nodeid, cases)

        with collector.with_value(count):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keeps what the test found, once its smallest case is known."""
        if report.when == "call":
            self._journal.finish(report.nodeid)
        if report.failed:
            keep_find(self._finds, report.nodeid, report.longreprtext)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the figures of this run and of those that it continues."""
        write = terminalreporter.write_line
        terminalreporter.section("fuzzing")
        self._journal.flush()
        for (kind, name), number in self._journal.counts().most_common():
            write(f"{number:9,} {kind:9} {name}")
        kinds = Counter(kind for (kind, _name) in self._journal.counts().elements())
        for kind, number in kinds.most_common():
            write(f"{number:9,} cases, {kind}")
        finds = sorted(self._finds.glob("*.txt"))
        write(f"{kinds.total():9,} cases, {len(finds)} finds")
        for file in finds:
            write(f"          kept in {file}")

    def _counted(self, name: str, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def counted(*arguments: Any, **named: Any) -> Any:
            self._journal.count(_PROPERTY, name)
            try:
                return test(*arguments, **named)
            except UnsatisfiedAssumption:
                raise
            except Exception:  # the first one; the smallest one replaces it
                keep_find(self._finds, name, f"{named}\n\n{traceback.format_exc()}")
                raise

        return counted
