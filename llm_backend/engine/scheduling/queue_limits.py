"""How many requests may wait for a slot, and for how long, by priority (pure)."""

from dataclasses import dataclass
from typing import Self

from llm_backend.engine.messages import Priority, Start
from llm_backend.engine.scheduling.generation_request import GenerationRequest

__all__ = ["QueueLimits"]


@dataclass(frozen=True, kw_only=True)
class _Queue:
    limit: int
    deadline_s: float


class QueueLimits:
    """A queue for each priority, so that batch requests keep nobody else out."""

    def __init__(self, queues: dict[Priority, _Queue]) -> None:
        self._queues = queues

    @classmethod
    def of(cls, start: Start) -> Self:
        """As the engine is set up."""
        interactive = _Queue(limit=start.queue_limit, deadline_s=start.queue_deadline_s)
        batch = _Queue(limit=start.batch_queue_limit, deadline_s=start.batch_queue_deadline_s)
        return cls({Priority.INTERACTIVE: interactive, Priority.BATCH: batch})

    def limit(self, priority: Priority) -> int:
        """How many of this priority may wait."""
        return self._queues[priority].limit

    def ended_s(self, request: GenerationRequest, now: float) -> float | None:
        """The deadline that a request has waited beyond; None for one that has not."""
        deadline_s = self._queues[request.priority].deadline_s
        return deadline_s if now - request.arrived_at > deadline_s else None
