"""Sequential engine: computes one command at a time, in the order of arrival.

A client sends the parts of a request one by one: windows and blocks of a recording, sentences of a
text, images. So requests take turns, and a long one does not block a short one.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from llm_backend.engine.command_refused import check_queue, unsupported_command
from llm_backend.engine.messages import (
    ComputedCommand,
    Diarize,
    Diarized,
    Draw,
    DrawingStep,
    Failure,
    ImageDrawn,
    LoadModel,
    ModelInfo,
    ModelKind,
    SlotAssigned,
    Speak,
    Spoken,
    Status,
    Transcribe,
    Transcribed,
)
from llm_backend.engine.messages.address import Address, Publish
from llm_backend.engine.worker_engine import WorkerEngine

_POLL_INTERVAL_S = 0.02  # for new commands, while one is computed

_COMMANDS = {
    ModelKind.TRANSCRIPTION: Transcribe,
    ModelKind.SPEECH: Speak,
    ModelKind.DIARIZATION: Diarize,
    ModelKind.IMAGES: Draw,
}
_NOUNS = {
    ModelKind.TRANSCRIPTION: "recording",
    ModelKind.SPEECH: "text",
    ModelKind.DIARIZATION: "recording",
    ModelKind.IMAGES: "image",
}

SequentialCommand = Transcribe | Speak | Diarize | Draw
"""Commands that are computed one at a time."""

Answer = Transcribed | Spoken | Diarized | ImageDrawn
"""The last event of a command."""

Report = Callable[[DrawingStep], None]
"""Publishes an event of a command that is being computed."""


class Cancelled(Exception):
    """A computation was stopped, because its command was cancelled."""


class SequentialModel(Protocol):
    """A model that computes one command at a time."""

    @property
    def kind(self) -> ModelKind:
        """Kind of the model, which determines the type of its commands."""
        ...

    def info(self) -> ModelInfo:
        """Information about the model."""
        ...

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a command that this model cannot compute."""
        ...

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], report: Report
    ) -> Answer:
        """Computes the answer; calls `should_stop` often, and `report` for events before the
        answer. Raises `Cancelled` if `should_stop` returned True, `DecodeError` if the native code
        fails."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    command: SequentialCommand
    arrived_at: float


class SequentialEngine(WorkerEngine):
    """Owns all commands between `submit` and their last event. While it computes a command it calls
    `receive`, which handles the commands that have arrived (one may cancel the computed command),
    and returns True if the worker must end."""

    def __init__(
        self,
        model: SequentialModel,
        config: LoadModel,
        publish: Publish,
        receive: Callable[[], bool],
    ) -> None:
        super().__init__(config, publish)
        self._model = model
        self._receive = receive
        self._waiting: dict[Address, _Waiting] = {}  # in order of arrival
        self._running: Address | None = None
        self._polled_at = 0.0

    @property
    def is_idle(self) -> bool:
        """True if a step would have nothing to do."""
        return not self._waiting

    @property
    def addresses(self) -> Iterable[Address]:
        """Addresses of all commands."""
        return [*self._waiting, *([self._running] if self._running else [])]

    def status(self, name: str) -> Status:
        """Status of the engine, as the answer to the probe `name`."""
        return self._status(
            name, running=int(self._running is not None), waiting=len(self._waiting)
        )

    def submit(self, address: Address, command: ComputedCommand, now: float) -> None:
        """Queues a command. Raises `CommandRefused`."""
        kind = self._model.kind
        if not isinstance(command, SequentialCommand) or not isinstance(command, _COMMANDS[kind]):
            raise unsupported_command(kind, command)
        self._model.check(command)
        if not command.has_begun:
            limit, free_slots = self._config.queue_limit, int(self._running is None)
            noun = f"{_NOUNS[kind]}s"
            check_queue(len(self._waiting), limit, free_slots=free_slots, noun=noun)
        self._waiting[address] = _Waiting(command=command, arrived_at=now)

    def cancel(self, address: Address) -> None:
        """Removes a command; stops it if it is being computed."""
        self._waiting.pop(address, None)
        if self._running == address:
            self._running = None

    def step(self, now: float) -> None:
        """Computes the command that has waited longest."""
        self._expire(now)
        if not self._waiting:
            return
        address = next(iter(self._waiting))
        command = self._waiting.pop(address).command
        self._running, self._polled_at = address, now
        self._publish(address, SlotAssigned(id=address.id, prompt_tokens=0))
        try:
            report = partial(self._publish, address)
            answer = self._model.compute(command, self._should_stop, report)
        except Cancelled:
            return
        self._running = None
        tokens = _token_count(answer)
        self.statistics.count(sequences=1, tokens=tokens)
        self.statistics.generated_tokens += tokens
        self._publish(address, answer)

    def abort(self, message: str) -> None:
        """Fails the command of a step that raised an error."""
        if self._running is not None:
            self._fail(self._running, Failure.INTERNAL, message)

    def _should_stop(self) -> bool:
        now = time.monotonic()
        if now - self._polled_at >= _POLL_INTERVAL_S:
            self._polled_at = now
            if self._receive():
                self._running = None
        return self._running is None

    def _expire(self, now: float) -> None:
        deadline_s = self._config.queue_deadline_s
        noun = _NOUNS[self._model.kind]
        for address, one in list(self._waiting.items()):
            if not one.command.has_begun and now - one.arrived_at > deadline_s:
                message = f"The {noun} had no turn within {deadline_s:g} seconds; try later."
                self._fail(address, Failure.QUEUE_DEADLINE, message)


def _token_count(answer: Answer) -> int:
    """Returns the number of tokens of a transcript; audio and images have none."""
    if not isinstance(answer, Transcribed):
        return 0
    return sum(len(one.tokens) for one in answer.segments)
