"""Queue limits: how many requests may wait for a slot, and for how long, by priority (pure)."""

from dataclasses import dataclass
from typing import Self

from llm_backend.engine.messages import Priority, Start


@dataclass(frozen=True, kw_only=True)
class _QueueLimit:
    limit: int
    deadline_s: float


class QueueLimits:
    """Limit and deadline of each priority's queue; a full batch queue does not keep interactive
    requests out."""

    def __init__(self, queues: dict[Priority, _QueueLimit]) -> None:
        self._queues = queues

    @classmethod
    def of(cls, start: Start) -> Self:
        """The limits by a worker's `Start` command."""
        interactive = _QueueLimit(limit=start.queue_limit, deadline_s=start.queue_deadline_s)
        batch = _QueueLimit(limit=start.batch_queue_limit, deadline_s=start.batch_queue_deadline_s)
        return cls({Priority.INTERACTIVE: interactive, Priority.BATCH: batch})

    def limit(self, priority: Priority) -> int:
        """Number of requests of this priority that may wait."""
        return self._queues[priority].limit

    def exceeded_deadline_s(
        self, arrived_at: float, priority: Priority, now: float
    ) -> float | None:
        """Returns the deadline in seconds that a waiting request has exceeded; None if it has
        not."""
        deadline_s = self._queues[priority].deadline_s
        return deadline_s if now - arrived_at > deadline_s else None
