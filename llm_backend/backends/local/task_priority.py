"""How urgent is what a task asks of the models here, beyond what its requests say themselves.

A line of a batch is an ordinary request, dispatched as one; that nobody waits for it is known only
to the task that dispatches it, and travels with that task.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llm_backend.engine.messages import Priority

__all__ = ["at_batch_priority", "priority_of"]

_is_batch: ContextVar[bool] = ContextVar("is_batch", default=False)


@contextmanager
def at_batch_priority() -> Iterator[None]:
    """Nobody waits for what this task, or one that it starts, asks within."""
    token = _is_batch.set(True)
    try:
        yield
    finally:
        _is_batch.reset(token)


def priority_of(asked: Priority) -> Priority:
    """The priority of a request that asks for this one."""
    return Priority.BATCH if _is_batch.get() else asked
