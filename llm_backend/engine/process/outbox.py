"""Outbox of a worker: decides when events are sent: those of one step together, and not during a
pass.

A pass needs all processors, and its threads wait for each other: an API process that handles an
event meanwhile would delay all of them. Between two passes one processor is idle. So deltas from
the middle of an answer wait for the end of the next pass, if that pass is short. The API process
then writes them to the client while the worker samples the next tokens. The end of an answer, its
first delta if that is of one token, and all other events are sent immediately.
"""

import time
from collections import defaultdict

from llm_backend.engine.messages import Delta, Event, Queued, SlotAssigned
from llm_backend.engine.messages.address import Address
from llm_backend.engine.moving_average import moving_average
from llm_backend.engine.process.connection_server import ConnectionServer

_SHORT_S = 0.1  # seconds: a client does not notice such a delay of a token
_LONG_S = 0.15  # hysteresis: clients notice each change between delaying and not delaying


class Outbox:
    """Queues events until they are due. `delays_deltas`: passes run on processors of this machine,
    which the API process shares."""

    def __init__(self, connections: ConnectionServer, *, delays_deltas: bool = True) -> None:
        self._connections = connections
        self._delays_deltas = delays_deltas
        self._queued: defaultdict[int, list[Event]] = defaultdict(list)
        self._is_due = False
        # start of the pass in progress, if it computes one token of each sequence
        self._pass_started_at: float | None = None
        self._pass_s = 0.0  # average duration of such passes
        self._passes_are_short = True  # such passes are short enough to delay events

    def publish(self, address: Address, event: Event) -> None:
        """Queues `event`; `Queued` and `SlotAssigned` are sent immediately, so that after a crash
        the owner knows which requests were computed."""
        self._queued[address.connection].append(event)
        self._is_due = self._is_due or not _can_wait(event)
        if isinstance(event, Queued | SlotAssigned):
            self.send()

    def end_step(self, *, is_idle: bool) -> None:
        """Sends all events, unless all of them can wait and another pass follows."""
        if self._is_due or is_idle or not self._delays_deltas:
            self.send()

    def begin_pass(self, *, is_decode_only: bool) -> None:
        """Sends all events before a long pass. `is_decode_only`: it computes one token of
        each sequence."""
        if not is_decode_only or not self._passes_are_short:
            self.send()
        self._pass_started_at = time.monotonic() if is_decode_only else None

    def end_pass(self) -> None:
        """Sends the events that have waited for the end of the pass."""
        if self._pass_started_at is not None:
            seconds = time.monotonic() - self._pass_started_at
            self._pass_s = moving_average(self._pass_s, seconds)
            self._passes_are_short = self._pass_s < (
                _LONG_S if self._passes_are_short else _SHORT_S
            )
        self.send()

    def send(self) -> None:
        """Sends all queued events, one frame for each connection."""
        self._is_due = False
        for connection, events in self._queued.items():
            self._connections.send(connection, events)
        self._queued.clear()


def _can_wait(event: Event) -> bool:
    """True if the event is from the middle of an answer."""
    if not isinstance(event, Delta) or event.finish_reason is not None:
        return False
    return event.completion_tokens + event.discarded_tokens > 1
