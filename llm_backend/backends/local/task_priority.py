"""Priority of an asyncio task's requests to local models, besides the requests' own priority.

A line of a batch is dispatched as an ordinary request. Only the task that dispatches the line knows
that the request is not interactive. A context variable passes this on to the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llm_backend.engine.messages import Priority

_is_batch: ContextVar[bool] = ContextVar("is_batch", default=False)


@contextmanager
def at_batch_priority() -> Iterator[None]:
    """Gives batch priority to all requests of this task, and of tasks it starts, in the block."""
    token = _is_batch.set(True)
    try:
        yield
    finally:
        _is_batch.reset(token)


def priority_of(priority: Priority) -> Priority:
    """Returns the effective priority of a request with this one."""
    return Priority.BATCH if _is_batch.get() else priority
