"""The queue of windows: recordings take turns, and a cancelled window stops."""

from collections.abc import Callable
from typing import Any

import pytest

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.messages import (
    Failed,
    Failure,
    ModelKind,
    SlotAssigned,
    Transcribe,
    Transcribed,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialEngine


class Limits:
    deaths = 0
    queue_limit = 2
    queue_deadline_s = 10.0


class Model:
    kind = ModelKind.TRANSCRIPTION

    def __init__(self) -> None:
        self.computed: list[str] = []

    def check(self, command: Transcribe) -> None:
        """Accepts every window."""

    def compute(
        self, command: Transcribe, should_stop: Callable[[], bool], _report: Report
    ) -> Transcribed:
        if should_stop():
            raise Cancelled
        self.computed.append(command.id)
        return Transcribed(id=command.id, segments=[], language="", language_name="", end_s=1)


class Queue:
    """A transcriber, with the events that it published."""

    def __init__(self, receive: Callable[["Queue"], bool] = lambda queue: False) -> None:
        self.model = Model()
        self.events: list[Any] = []
        self.transcriber = SequentialEngine(
            self.model, Limits, self._publish, lambda: receive(self)
        )
        self.transcriber.step(-1)  # long ago, so that a step looks for commands at once

    def _publish(self, _address: Address, event: Any) -> None:
        if not isinstance(event, SlotAssigned):
            self.events.append(event)

    def submit(self, id: str, *, now: float = 0, has_begun: bool = False) -> None:
        command = Transcribe(id=id, samples=b"", has_begun=has_begun)
        self.transcriber.submit(Address(1, id), command, now)


def test_recordings_take_turns_by_windows():
    queue = Queue()
    queue.submit("long 1")
    queue.transcriber.step(0)
    queue.submit("short 1")
    queue.submit("long 2", has_begun=True)
    queue.submit("other 1")
    for _ in range(4):
        queue.transcriber.step(0)

    assert queue.model.computed == ["long 1", "short 1", "long 2", "other 1"]
    assert queue.transcriber.is_idle


def test_a_full_queue_refuses_new_recordings_only():
    queue = Queue()
    for number in range(3):
        queue.submit(f"{number}")
    with pytest.raises(CommandRefused) as refused:
        queue.submit("new")
    queue.submit("begun", has_begun=True)

    assert refused.value.failure is Failure.QUEUE_FULL


def test_a_full_queue_counts_no_window_that_is_computed():
    refused = []

    def fill(queue: Queue) -> bool:
        for number in range(3):
            try:
                queue.submit(f"{number}")
            except CommandRefused as error:
                refused.append((number, error.failure))
        return False

    queue = Queue(fill)
    queue.submit("computed")
    queue.transcriber.step(0)

    assert refused == [(2, Failure.QUEUE_FULL)]


def test_a_recording_without_a_turn_fails_after_its_deadline():
    queue = Queue()
    queue.submit("new")
    queue.submit("begun", has_begun=True)
    queue.transcriber.step(11)

    assert [one.id for one in queue.events if isinstance(one, Failed)] == ["new"]
    assert queue.model.computed == ["begun"]


def test_a_window_that_is_cancelled_while_it_is_computed_gets_no_answer():
    def cancel(queue: Queue) -> bool:
        queue.transcriber.cancel(Address(1, "a"))
        return False

    queue = Queue(cancel)
    queue.submit("a")
    queue.transcriber.step(0)

    assert queue.events == []
    assert queue.transcriber.status("probe").running == 0


def test_a_worker_that_is_to_end_stops_its_window():
    queue = Queue(lambda _: True)
    queue.submit("a")
    queue.transcriber.step(0)

    assert queue.events == []
