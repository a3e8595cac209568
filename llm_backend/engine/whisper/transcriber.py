"""Transcriber: takes `Transcribe` commands, and transcribes one window after the other.

A client sends the windows of a recording one by one, so that recordings take turns, and a long one
does not hold up a short one.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llm_backend.engine.command_refused import check_queue, unsupported_command
from llm_backend.engine.computing_engine import ComputingEngine
from llm_backend.engine.messages import (
    ComputedCommand,
    Failure,
    SlotAssigned,
    Start,
    Status,
    Transcribe,
)
from llm_backend.engine.messages.address import Address, Publish
from llm_backend.engine.whisper.model import Cancelled, WhisperModel

_POLL_INTERVAL_S = 0.02  # between looks for commands while a window is computed


@dataclass(frozen=True, kw_only=True)
class _Waiting:
    command: Transcribe
    arrived_at: float


class Transcriber(ComputingEngine):
    """Owns all windows between `submit` and their last event. `receive` is called while a window is
    computed: it handles the commands that have arrived, which may cancel that window, and returns
    True if the worker is to end."""

    def __init__(
        self, model: WhisperModel, start: Start, publish: Publish, receive: Callable[[], bool]
    ) -> None:
        super().__init__(start, publish)
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
        """Addresses of all windows."""
        return [*self._waiting, *([self._running] if self._running else [])]

    def status(self, name: str) -> Status:
        """Status of the engine, as the answer to the probe `name`."""
        return self._status(
            name, running=int(self._running is not None), waiting=len(self._waiting)
        )

    def submit(self, address: Address, command: ComputedCommand, now: float) -> None:
        """Queue a window. Raises `CommandRefused`."""
        if not isinstance(command, Transcribe):
            raise unsupported_command(self._model.kind, command)
        self._model.check(command)
        if not command.has_begun:
            limit, free_slots = self._start.queue_limit, int(self._running is None)
            check_queue(len(self._waiting), limit, free_slots=free_slots, noun="recordings")
        self._waiting[address] = _Waiting(command=command, arrived_at=now)

    def cancel(self, address: Address) -> None:
        """Remove a window; one that is being computed is stopped."""
        self._waiting.pop(address, None)
        if self._running == address:
            self._running = None

    def step(self, now: float) -> None:
        """One step: transcribe the window that has waited longest."""
        self._expire(now)
        if not self._waiting:
            return
        address = next(iter(self._waiting))
        command = self._waiting.pop(address).command
        self._running, self._polled_at = address, now
        self._publish(address, SlotAssigned(id=address.id, prompt_tokens=0))
        try:
            answer = self._model.transcribe(command, self._should_stop)
        except Cancelled:
            return
        self._running = None
        tokens = sum(len(one.tokens) for one in answer.segments)
        self.statistics.count(sequences=1, tokens=tokens)
        self.statistics.generated_tokens += tokens
        self._publish(address, answer)

    def abort(self, message: str) -> None:
        """Fail the window of a step that raised an error."""
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
        deadline_s = self._start.queue_deadline_s
        for address, one in list(self._waiting.items()):
            if not one.command.has_begun and now - one.arrived_at > deadline_s:
                message = f"The recording had no turn within {deadline_s:g} seconds; try later."
                self._fail(address, Failure.QUEUE_DEADLINE, message)
