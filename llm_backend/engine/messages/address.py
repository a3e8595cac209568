"""Whom an event answers: a command of one of the connected API processes; and how it is told."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from llm_backend.engine.messages import Event

__all__ = ["Address", "Outgoing", "Publish"]


@dataclass(frozen=True)
class Address:
    """Command `id` of connection `connection`; ids are unique within a connection only."""

    connection: int
    id: str


Publish = Callable[[Address, Event], None]


class Outgoing(Protocol):
    """Where a generator leaves its events, and tells when it computes."""

    def publish(self, address: Address, event: Event) -> None:
        """`event` is on its way."""

    def pass_begins(self, *, is_brief: bool) -> None:
        """A forward pass comes next; `is_brief`: of one token of each."""

    def pass_ended(self) -> None:
        """It was computed."""

    def send(self) -> None:
        """What is on its way leaves now: something else comes next that may take long."""
