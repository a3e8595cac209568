"""The state machine of the engine, with the host prefix cache."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache
from llm_backend.engine.messages import Priority
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.fakes import load_command
from tests.engine.test_generator_properties import DEADLINES_S, SAMPLINGS, EngineMachine
from tests.examples import examples

LIMIT_BYTES = 3000  # two or three of its longest texts
MACHINE_BYTES = 16_000


class RamMachine(EngineMachine):
    """Saves overwritten slots in host memory, of which the machine may run short."""

    def __init__(self) -> None:
        super().__init__()
        self.available_bytes = MACHINE_BYTES
        self.host_cache = HostPrefixCache(
            LIMIT_BYTES,
            can_roll_back=self.can_roll_back,
            machine_bytes=MACHINE_BYTES,
            available_bytes=lambda: self.available_bytes,
        )
        bounds = load_command(
            draft_tokens=self.draft_tokens,
            queue_deadline_s=DEADLINES_S[Priority.INTERACTIVE],
            batch_queue_deadline_s=DEADLINES_S[Priority.BATCH],
        )
        drafter = Drafter(self.draft, self.draft.vocabulary.size) if self.draft_memory else None
        self.generator = Generator(
            self.model, bounds, self.outbox, drafter, host_cache=self.host_cache
        )

    @rule(letters=st.sampled_from(["a", "ab", "abc", "b", "c"]), length=st.integers(66, 90))
    def long_chat(self, letters: str, length: int) -> None:
        self.submit(
            prompt=(letters * 90)[:length],
            n=1,
            media=[],
            max_tokens=4,
            priority=Priority.INTERACTIVE,
            sampling=SAMPLINGS[0],
        )

    @rule(available_bytes=st.sampled_from([0, MACHINE_BYTES]))
    def memory_changes(self, available_bytes: int) -> None:
        self.available_bytes = available_bytes
        self.now += 6

    @invariant()
    def states_are_within_the_limit(self) -> None:
        assert self.host_cache.bytes <= LIMIT_BYTES
        assert len(self.host_cache) == len(self.host_cache._prefixes)


class CrowdedRamMachine(RamMachine):
    cells = 130


class DraftedRamMachine(RamMachine):
    memory = 2
    draft_tokens = 3
    draft_memory = 1


class UncuttableRamMachine(RamMachine):
    can_roll_back = False


for machine in (RamMachine, CrowdedRamMachine, DraftedRamMachine, UncuttableRamMachine):
    machine.TestCase.settings = settings(max_examples=examples(30), stateful_step_count=40)

TestEngineWithStatesInMemory = RamMachine.TestCase
TestEngineWithStatesInMemoryThatRunsOutOfCells = CrowdedRamMachine.TestCase
TestEngineWithStatesInMemoryAndADraftModel = DraftedRamMachine.TestCase
TestEngineWithStatesInMemoryThatCannotRollBack = UncuttableRamMachine.TestCase
