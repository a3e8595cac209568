from llm_backend.engine.messages import Delta, FinishReason, Queued
from llm_backend.engine.messages.address import Address
from llm_backend.engine.process.outbox import Outbox

HERE = Address(1, "a")


class FakeHub:
    def __init__(self) -> None:
        self.frames: list[list[str]] = []

    def send(self, number: int, events) -> None:
        self.frames.append([getattr(event, "text", type(event).__name__) for event in events])


def middle(text: str, count: int = 2, **fields) -> Delta:
    return Delta(id="a", index=0, text=text, completion_tokens=count, **fields)


def after_a_pass(connections: FakeHub, **options) -> Outbox:
    """An outbox that has measured short passes of decoding sequences."""
    outbox = Outbox(connections, **options)
    outbox.begin_pass(is_decode_only=True)
    outbox.end_pass()
    return outbox


def test_outbox_delays_middle_deltas_until_the_next_pass():
    connections = FakeHub()
    outbox = after_a_pass(connections)
    outbox.publish(HERE, middle("b"))
    outbox.end_step(is_idle=False)
    outbox.begin_pass(is_decode_only=True)
    during = list(connections.frames)
    outbox.end_pass()

    assert during == []
    assert connections.frames == [["b"]]


def test_outbox_sends_first_and_last_deltas_at_once():
    connections = FakeHub()
    outbox = after_a_pass(connections)
    outbox.publish(HERE, middle("a", count=1))
    outbox.end_step(is_idle=False)
    outbox.publish(HERE, middle("z", finish_reason=FinishReason.STOP))
    outbox.end_step(is_idle=False)

    assert connections.frames == [["a"], ["z"]]


def test_outbox_sends_delayed_deltas_first():
    connections = FakeHub()
    outbox = after_a_pass(connections)
    outbox.publish(HERE, middle("b"))
    outbox.publish(HERE, Queued(id="c"))

    assert connections.frames == [["b", "Queued"]]


def test_outbox_delays_nothing_for_a_prefill_pass():
    connections = FakeHub()
    outbox = after_a_pass(connections)
    outbox.publish(HERE, middle("b"))
    outbox.end_step(is_idle=False)
    outbox.begin_pass(is_decode_only=False)

    assert connections.frames == [["b"]]


def test_outbox_delays_nothing_if_decode_passes_are_long(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("llm_backend.engine.process.outbox.time.monotonic", lambda: clock[0])
    connections = FakeHub()
    outbox = Outbox(connections)

    def frames_before(passes: int, seconds: float) -> int:
        """Number of events that were sent before the next pass, with passes of this duration."""
        early = 0
        for _ in range(passes):
            outbox.publish(HERE, middle("b"))
            outbox.end_step(is_idle=False)
            outbox.begin_pass(is_decode_only=True)
            early += len(connections.frames)
            clock[0] += seconds
            outbox.end_pass()
            connections.frames.clear()
        return early

    assert frames_before(20, 0.08) == 0
    assert frames_before(20, 0.3) > 15
    assert frames_before(20, 0.12) == 20  # not short enough to wait again
    frames_before(5, 0.01)
    assert frames_before(20, 0.12) == 0  # nor long enough to wait no more


def test_outbox_delays_nothing_if_idle():
    connections = FakeHub()
    outbox = after_a_pass(connections)
    outbox.publish(HERE, middle("b"))
    outbox.end_step(is_idle=True)

    assert connections.frames == [["b"]]


def test_outbox_delays_nothing_if_passes_run_on_a_gpu():
    connections = FakeHub()
    outbox = after_a_pass(connections, delays_deltas=False)
    outbox.publish(HERE, middle("b"))
    outbox.end_step(is_idle=False)

    assert connections.frames == [["b"]]
