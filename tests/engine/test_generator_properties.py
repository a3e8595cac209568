"""A state machine: whatever comes in whatever order, every request ends once and rightly."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from llm_backend.engine.generator import Generator
from llm_backend.engine.messages import (
    Delta,
    Failed,
    Failure,
    Generate,
    Priority,
    Sampling,
    SlotAssigned,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.fakes import FakeModel, Outbox, expected_text, generate, image, load_command
from tests.examples import examples

PROMPTS = st.builds(
    lambda prefix, length, rest: (prefix * 90)[:length] + rest,
    st.sampled_from(["a", "ab", "abc"]),
    st.integers(0, 90),  # long enough for a batch request to have its share
    st.text("abc", min_size=1, max_size=4),
)

IMAGES = st.lists(
    st.builds(
        image,
        st.sampled_from(["cat", "dog"]),
        at=st.integers(0, 2),
        width=st.sampled_from([1, 5, 20]),  # more than one pass holds
    )
    | st.builds(image, at=st.just(1), width=st.just(12), height=st.just(2)),
    max_size=2,
).map(lambda found: sorted(found, key=lambda one: one.at))

DEADLINES_S = {Priority.INTERACTIVE: 20, Priority.BATCH: 200}
SAMPLINGS = (Sampling(temperature=0), Sampling(seed=7, frequency_penalty=0.1, top_p=0.8))


class EngineMachine(RuleBasedStateMachine):
    """Requests come and go over `step`s; at the end everything must be as at the beginning."""

    requests = Bundle("requests")
    can_roll_back = True
    cells: int | None = None
    memory: int | None = None
    draft_tokens = 0
    draft_memory: int | None = None  # what its draft model goes by; None has none

    def __init__(self) -> None:
        super().__init__()
        self.model = FakeModel(
            slots=3,
            context_tokens=128,
            cells=self.cells,
            can_roll_back=self.can_roll_back,
            memory=self.memory,
        )
        self.outbox = Outbox()
        bounds = load_command(
            draft_tokens=self.draft_tokens,
            queue_deadline_s=DEADLINES_S[Priority.INTERACTIVE],
            batch_queue_deadline_s=DEADLINES_S[Priority.BATCH],
        )
        self.draft = FakeModel(slots=3, context_tokens=100, memory=self.draft_memory)
        drafter = Drafter(self.draft, self.draft.vocabulary.size) if self.draft_memory else None
        self.generator = Generator(self.model, bounds, self.outbox, drafter)
        self.commands: dict[str, Generate] = {}
        self.arrivals: dict[str, int] = {}
        self.cancelled: dict[str, int] = {}
        self.now = 0

    @rule(
        target=requests,
        prompt=PROMPTS,
        media=IMAGES,
        n=st.integers(1, 4),
        max_tokens=st.integers(0, 12),
        priority=st.sampled_from(Priority),
        sampling=st.sampled_from(SAMPLINGS),
    )
    def submit(self, **fields: object) -> str:
        if not 2 < len(fields["prompt"]) < 64:  # images stand in it, and all of it has room
            fields["media"] = []
        command = generate(id=str(len(self.commands)), **fields)
        self.commands[command.id] = command
        self.arrivals[command.id] = self.now
        self.generator.submit(Address(1, command.id), command, self.now)
        return command.id

    @rule(name=consumes(requests))
    def cancel(self, name: str) -> None:
        self.generator.cancel(Address(1, name))
        self.cancelled[name] = len(self.outbox.events.get(name, []))

    @rule(count=st.integers(1, 5))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.generator.step(self.now)

    @rule(seconds=st.sampled_from([1, 15, 60]))
    def time_goes_by(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def nobody_interactive_waits_for_what_batch_work_computes(self) -> None:
        for follower, (leader, _) in self.generator._scheduler._waiting_queue._leaders.items():
            assert (follower.priority, leader.priority) != (Priority.INTERACTIVE, Priority.BATCH)

    @invariant()
    def only_who_was_never_accepted_is_in_the_queue(self) -> None:
        ended = set(self.outbox.events) | set(self.cancelled)
        assert self.generator.status("s").waiting == len(set(self.commands) - ended)

    @invariant()
    def slots_are_those_of_the_running(self) -> None:
        running = self.generator._scheduler.running
        assert len({sequence.slot for sequence in running}) == len(running)
        assert self.generator._scheduler.free_slots == self.model.slots - len(running)

    @invariant()
    def cells_hold_what_is_believed(self) -> None:
        for slot in self.generator._scheduler._cache._slots:
            assert self.model.slot_tokens[slot.number] == slot.tokens
            assert self.model.positions[slot.number] == sorted(self.model.positions[slot.number])

    def teardown(self) -> None:
        for _ in range(len(self.commands) * 200):
            if self.generator.is_idle:
                break
            self.generator.step(self.now)
        assert self.generator.is_idle, "a sequence starves"
        assert self.generator._scheduler.free_slots == self.model.slots, "a slot leaks"
        assert not self.generator._requests
        assert not self.generator._consumers
        for name, command in self.commands.items():
            events = self.outbox.events.get(name, [])
            if name in self.cancelled:
                assert len(events) == self.cancelled[name], "a cancelled request goes on"
            elif not isinstance(events[0], Failed):
                check(command, events, self.memory)
            else:
                assert [event.failure for event in events] == [Failure.QUEUE_DEADLINE]
                assert self.now - self.arrivals[name] > DEADLINES_S[command.priority]


def check(command: Generate, events: list, memory: int | None) -> None:
    """`SlotAssigned` first, each answer right, each ended exactly once."""
    assert isinstance(events[0], SlotAssigned)
    for index in range(command.n):
        expected = expected_text(command, index, memory)
        deltas = [event for event in events if isinstance(event, Delta) and event.index == index]
        assert "".join(delta.text for delta in deltas) == expected
        assert [delta.finish_reason is not None for delta in deltas].count(True) == 1
        assert deltas[-1].finish_reason is not None


class CrowdedMachine(EngineMachine):
    cells = 130


class UncuttableMachine(EngineMachine):
    can_roll_back = False


class GuessingMachine(EngineMachine):
    memory = 2
    draft_tokens = 3


class CrowdedGuessingMachine(GuessingMachine):
    cells = 130


class UncuttableGuessingMachine(GuessingMachine):
    can_roll_back = False


class DraftedMachine(GuessingMachine):
    """Its draft model is right at times."""

    draft_memory = 1


class CrowdedDraftedMachine(DraftedMachine):
    cells = 130


MACHINES = (
    EngineMachine,
    CrowdedMachine,
    UncuttableMachine,
    GuessingMachine,
    CrowdedGuessingMachine,
    UncuttableGuessingMachine,
    DraftedMachine,
    CrowdedDraftedMachine,
)
for machine in MACHINES:
    machine.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=40)

TestEngine = EngineMachine.TestCase
TestEngineThatRunsOutOfCells = CrowdedMachine.TestCase
TestEngineWhoseStateCannotBeCut = UncuttableMachine.TestCase
TestEngineThatGuesses = GuessingMachine.TestCase
TestEngineThatGuessesAndRunsOutOfCells = CrowdedGuessingMachine.TestCase
TestEngineThatGuessesAndCannotBeCut = UncuttableGuessingMachine.TestCase
TestEngineWithADraftModel = DraftedMachine.TestCase
TestEngineWithADraftModelThatRunsOutOfCells = CrowdedDraftedMachine.TestCase
