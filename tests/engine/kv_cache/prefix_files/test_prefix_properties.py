"""The state machine of the engine, with prefixes in files and a disk that works when it likes."""

import tempfile
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.prefix_files import PrefixFolder
from llm_backend.engine.messages import PrefixLimits, Priority
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.fakes import load_command
from tests.engine.test_generator_properties import DEADLINES_S, SAMPLINGS, EngineMachine
from tests.examples import examples

MODEL = b"m" * 16


class Disk(Executor):
    """Executor that runs its tasks in order, when the test says so."""

    def __init__(self) -> None:
        self.is_quick = False
        self._tasks: deque[Callable[[], None]] = deque()

    def submit(self, function: Callable, *given: object) -> Future:
        future: Future = Future()

        def work() -> None:
            try:
                future.set_result(function(*given))
            except OSError as error:
                future.set_exception(error)

        self._tasks.append(work)
        if self.is_quick:
            self.work(len(self._tasks))
        return future

    def work(self, count: int) -> None:
        for _ in range(min(count, len(self._tasks))):
            self._tasks.popleft()()


class KeepingMachine(EngineMachine):
    """Its files hold two of its longest texts."""

    limits = PrefixLimits(folder="", tokens=64, bytes=2400)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.disk = Disk()
        prefixes = PrefixFolder(Path(self.folder.name), MODEL, self.limits, self.disk)
        bounds = load_command(
            draft_tokens=self.draft_tokens,
            queue_deadline_s=DEADLINES_S[Priority.INTERACTIVE],
            batch_queue_deadline_s=DEADLINES_S[Priority.BATCH],
        )
        drafter = Drafter(self.draft, self.draft.vocabulary.size) if self.draft_memory else None
        self.generator = Generator(self.model, bounds, self.outbox, drafter, prefixes)

    @rule(count=st.integers(1, 4))
    def disk_works(self, count: int) -> None:
        self.disk.work(count)

    @rule(letters=st.sampled_from(["a", "ab", "abc"]), length=st.integers(70, 90))
    def somebody_comes_back(self, letters: str, length: int) -> None:
        """Restarts after an idle time in which slots were saved, with a loss of all cells."""
        self.submit(
            prompt=(letters * 90)[:length],
            n=1,
            media=[],
            max_tokens=1,  # so that cached prompts are prefixes of longer ones
            priority=Priority.INTERACTIVE,
            sampling=SAMPLINGS[0],
        )
        for _ in range(len(self.commands) * 200):
            self.generator.step(self.now)
            self.disk.work(1)
            if self.generator.is_idle and self.generator.idle_timeout_s(self.now) is None:
                break
            self.now += self.generator.is_idle
        self.generator._slots.clear(range(self.model.slots))

    @rule()
    def a_file_disappears(self) -> None:
        for path in sorted(Path(self.folder.name).iterdir())[:1]:
            path.unlink()

    @invariant()
    def the_files_are_within_their_bound(self) -> None:
        files = Path(self.folder.name).iterdir()
        assert sum(path.stat().st_size for path in files) <= self.limits.bytes

    def teardown(self) -> None:
        self.disk.is_quick = True
        self.disk.work(1000)
        super().teardown()
        for _ in range(len(self.commands) + 1):  # reads that only cancelled sequences waited for
            self.generator.step(self.now)
            self.generator.step(self.now)
        assert not self.generator._scheduler._cache.prefixes_being_restored, (
            "a sequence would wait for ever"
        )
        self.folder.cleanup()


class CrowdedKeepingMachine(KeepingMachine):
    cells = 130


class DraftedKeepingMachine(KeepingMachine):
    memory = 2
    draft_tokens = 3
    draft_memory = 1


class UncuttableKeepingMachine(KeepingMachine):
    can_roll_back = False


for machine in (
    KeepingMachine,
    CrowdedKeepingMachine,
    DraftedKeepingMachine,
    UncuttableKeepingMachine,
):
    machine.TestCase.settings = settings(max_examples=examples(30), stateful_step_count=40)

TestEngineThatKeepsPrefixes = KeepingMachine.TestCase
TestEngineThatKeepsPrefixesAndRunsOutOfCells = CrowdedKeepingMachine.TestCase
TestEngineThatKeepsPrefixesAndHasADraftModel = DraftedKeepingMachine.TestCase
TestEngineThatKeepsPrefixesAndCannotBeCut = UncuttableKeepingMachine.TestCase
