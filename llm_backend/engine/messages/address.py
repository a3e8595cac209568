"""The address of an event (a command of one connected API process), and `EventSink`, which sends
events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_backend.engine.messages import Event


@dataclass(frozen=True)
class Address:
    """Command `id` of connection `connection`; ids are unique within a connection only."""

    connection: int
    id: str


Publish = Callable[[Address, Event], None]


class EventSink(Protocol):
    """Interface of the outbox: a generator publishes events and marks forward passes."""

    def publish(self, address: Address, event: Event) -> None:
        """Queues `event` for sending."""

    def begin_pass(self, *, is_decode_only: bool) -> None:
        """Notes that a forward pass begins. `is_decode_only`: it computes one token of each
        sequence."""

    def end_pass(self) -> None:
        """Notes that the pass has ended."""

    def send(self) -> None:
        """Sends the queued events now, because a long computation follows."""
