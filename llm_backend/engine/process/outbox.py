"""When events leave the worker: those of one turn together, and not in the middle of a pass.

A pass wants all processors, and its threads wait for each other: the API process, at work on an
event meanwhile, holds up all of them. Between two passes one processor is idle. So what a running
answer goes on with waits for the end of the next pass, if that is short: then it is written to its
client while the worker chooses the next tokens. The beginning and the end of an answer, and
whatever else there is to tell, leave at once.
"""

import time
from collections import defaultdict

from llm_backend.engine.messages import Accepted, Delta, Event, Queued
from llm_backend.engine.messages.address import Address
from llm_backend.engine.process.connection_server import ConnectionServer

__all__ = ["Outbox"]

_BRIEF_S = 0.1  # nobody sees that a token comes so much later
_LONG_S = 0.15  # apart from that, as each change from waiting to not waiting is seen
_SHARE = 0.2  # of the newest pass in what is believed


class Outbox:
    """Holds events until they are due. `waits`: passes are computed by processors of this machine,
    which the API process would share."""

    def __init__(self, connections: ConnectionServer, *, waits: bool = True) -> None:
        self._connections = connections
        self._waits = waits
        self._held: defaultdict[int, list[Event]] = defaultdict(list)
        self._is_due = False
        self._began_at: float | None = None  # the pass in progress, if it is one token of each
        self._pass_s = 0.0  # what such passes take
        self._is_brief = True  # they are short enough to be waited for

    def publish(self, address: Address, event: Event) -> None:
        """`event` is on its way; at once if it tells what is worked on next."""
        self._held[address.connection].append(event)
        self._is_due = self._is_due or not _can_wait(event)
        if isinstance(event, Queued | Accepted):
            self.send()

    def turn_ended(self, *, is_idle: bool) -> None:
        """Everything leaves unless all of it can wait, and a pass is to come."""
        if self._is_due or is_idle or not self._waits:
            self.send()

    def pass_begins(self, *, is_brief: bool) -> None:
        """Nothing waits for a pass that takes long. `is_brief`: it is one token of each."""
        if not is_brief or not self._is_brief:
            self.send()
        self._began_at = time.monotonic() if is_brief else None

    def pass_ended(self) -> None:
        """What has waited for this leaves."""
        if self._began_at is not None:
            self._pass_s += _SHARE * (time.monotonic() - self._began_at - self._pass_s)
            self._is_brief = self._pass_s < (_LONG_S if self._is_brief else _BRIEF_S)
        self.send()

    def send(self) -> None:
        """All events held, one frame for each connection."""
        self._is_due = False
        for connection, events in self._held.items():
            self._connections.send(connection, events)
        self._held.clear()


def _can_wait(event: Event) -> bool:
    """Whether it is the middle of an answer."""
    return isinstance(event, Delta) and event.finish_reason is None and event.completion_tokens > 1
