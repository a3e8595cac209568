"""Whom an event answers: a command of one of the connected API processes."""

from collections.abc import Callable
from dataclasses import dataclass

from llm_backend.engine.messages import Event

__all__ = ["Address", "Publish"]


@dataclass(frozen=True)
class Address:
    """Command `id` of connection `connection`; ids are unique within a connection only."""

    connection: int
    id: str


Publish = Callable[[Address, Event], None]
