"""A state machine: whatever comes in whatever order, every request ends once and rightly."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from llm_backend.engine.address import Address
from llm_backend.engine.generator import Generator
from llm_backend.engine.messages import Accepted, Delta, Generate, Priority
from tests.engine.fakes import FakeModel, Outbox, generate, greedy, start

PROMPTS = st.builds(
    lambda prefix, length, rest: (prefix * 90)[:length] + rest,
    st.sampled_from(["a", "ab", "abc"]),
    st.integers(0, 90),  # long enough for a batch request to have its share
    st.text("abc", min_size=1, max_size=4),
)


class EngineMachine(RuleBasedStateMachine):
    """Requests come and go over `turn`s; at the end everything must be as at the beginning."""

    requests = Bundle("requests")
    can_roll_back = True
    cells: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.model = FakeModel(
            slots=3, context_tokens=128, cells=self.cells, can_roll_back=self.can_roll_back
        )
        self.outbox = Outbox()
        self.generator = Generator(self.model, start(), self.outbox)
        self.commands: dict[str, Generate] = {}
        self.cancelled: dict[str, int] = {}

    @rule(
        target=requests,
        prompt=PROMPTS,
        n=st.integers(1, 4),
        max_tokens=st.integers(0, 12),
        priority=st.sampled_from(Priority),
    )
    def submit(self, prompt: str, n: int, max_tokens: int, priority: Priority) -> str:
        name = str(len(self.commands))
        command = generate(prompt, id=name, n=n, max_tokens=max_tokens, priority=priority)
        self.commands[command.id] = command
        self.generator.submit(Address(1, command.id), command, 0)
        return command.id

    @rule(name=consumes(requests))
    def cancel(self, name: str) -> None:
        self.generator.cancel(Address(1, name))
        self.cancelled[name] = len(self.outbox.events.get(name, []))

    @rule(count=st.integers(1, 5))
    def turn(self, count: int) -> None:
        for _ in range(count):
            self.generator.turn(0)

    @invariant()
    def slots_are_those_of_the_running(self) -> None:
        running = self.generator._scheduler.running
        assert len({sequence.slot for sequence in running}) == len(running)
        assert self.generator._scheduler.free_slots == self.model.slots - len(running)

    def teardown(self) -> None:
        for _ in range(len(self.commands) * 200):
            if self.generator.is_idle:
                break
            self.generator.turn(0)
        assert self.generator.is_idle, "somebody starves"
        assert self.generator._scheduler.free_slots == self.model.slots, "a slot leaks"
        assert not self.generator._requests
        assert not self.generator._answers
        for name, command in self.commands.items():
            events = self.outbox.events.get(name, [])
            if name in self.cancelled:
                assert len(events) == self.cancelled[name], "a cancelled request goes on"
            else:
                check(command, events)


def check(command: Generate, events: list) -> None:
    """Accepted first, each answer right, each ended exactly once."""
    assert isinstance(events[0], Accepted)
    assert isinstance(command.prompt, str)
    expected = greedy(command.prompt, command.max_tokens or 0)
    for index in range(command.n):
        deltas = [event for event in events if isinstance(event, Delta) and event.index == index]
        assert "".join(delta.text for delta in deltas) == expected
        assert [delta.finish_reason is not None for delta in deltas].count(True) == 1
        assert deltas[-1].finish_reason is not None


class CrowdedMachine(EngineMachine):
    cells = 130


class UncuttableMachine(EngineMachine):
    can_roll_back = False


for machine in (EngineMachine, CrowdedMachine, UncuttableMachine):
    machine.TestCase.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, print_blob=True
    )

TestEngine = EngineMachine.TestCase
TestEngineThatRunsOutOfCells = CrowdedMachine.TestCase
TestEngineWhoseStateCannotBeCut = UncuttableMachine.TestCase
