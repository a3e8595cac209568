from llm_backend.engine.address import Address
from llm_backend.engine.messages import Delta, FinishReason, Queued
from llm_backend.engine.outbox import Outbox

HERE = Address(1, "a")


class FakeHub:
    def __init__(self) -> None:
        self.frames: list[list[str]] = []

    def send(self, number: int, events) -> None:
        self.frames.append([getattr(event, "text", type(event).__name__) for event in events])


def middle(text: str, count: int = 2, **fields) -> Delta:
    return Delta(id="a", index=0, text=text, completion_tokens=count, **fields)


def after_a_pass(hub: FakeHub, **options) -> Outbox:
    """An outbox that has seen how short the passes of talkers are."""
    outbox = Outbox(hub, **options)
    outbox.pass_begins(is_brief=True)
    outbox.pass_ended()
    return outbox


def test_the_middle_of_an_answer_leaves_after_the_next_pass():
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("b"))
    outbox.turn_ended(is_idle=False)
    outbox.pass_begins(is_brief=True)
    during = list(hub.frames)
    outbox.pass_ended()

    assert during == []
    assert hub.frames == [["b"]]


def test_the_beginning_and_the_end_of_an_answer_leave_with_their_turn():
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("a", count=1))
    outbox.turn_ended(is_idle=False)
    outbox.publish(HERE, middle("z", finish_reason=FinishReason.STOP))
    outbox.turn_ended(is_idle=False)

    assert hub.frames == [["a"], ["z"]]


def test_what_waits_leaves_before_what_leaves_at_once():
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("b"))
    outbox.publish(HERE, Queued(id="c"))

    assert hub.frames == [["b", "Queued"]]


def test_nothing_waits_for_a_pass_that_reads_prompts():
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("b"))
    outbox.turn_ended(is_idle=False)
    outbox.pass_begins(is_brief=False)

    assert hub.frames == [["b"]]


def test_nothing_waits_where_passes_of_talkers_take_long(monkeypatch):
    now = iter([0.0, 0.2, 1.0])
    monkeypatch.setattr("llm_backend.engine.outbox.time.monotonic", lambda: next(now))
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("b"))
    outbox.turn_ended(is_idle=False)
    outbox.pass_begins(is_brief=True)

    assert hub.frames == [["b"]]


def test_nothing_waits_if_no_pass_is_to_come():
    hub = FakeHub()
    outbox = after_a_pass(hub)
    outbox.publish(HERE, middle("b"))
    outbox.turn_ended(is_idle=True)

    assert hub.frames == [["b"]]


def test_nothing_waits_where_another_processor_computes():
    hub = FakeHub()
    outbox = after_a_pass(hub, waits=False)
    outbox.publish(HERE, middle("b"))
    outbox.turn_ended(is_idle=False)

    assert hub.frames == [["b"]]
