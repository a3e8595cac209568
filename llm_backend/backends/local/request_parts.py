"""Parts of one request, computed one after the other by an engine."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from llm_backend.backends.local.model_handle import ModelHandle
from llm_backend.engine import EngineClient, EngineDown

_Answer = TypeVar("_Answer")


class RequestParts:
    """Computes the parts of a request. Between two of them the model may be unloaded for another
    one. If the engine crashes in a later part, that part is computed once more (once in a request),
    because nothing of it was sent. Part one is not: it may have crashed the engine, and would do so
    again."""

    def __init__(self, handle: ModelHandle) -> None:
        self._handle = handle
        self._has_retried = False
        self.has_begun = False
        """True when a part was computed."""

    async def take(self, compute: Callable[[EngineClient], Awaitable[_Answer]]) -> _Answer:
        """Returns the answer to a part. Raises as the engine does."""
        try:
            answer = await self._compute(compute)
        except EngineDown:
            if self._has_retried or not self.has_begun:
                raise
            self._has_retried = True
            answer = await self._compute(compute)
        self.has_begun = True
        return answer

    async def _compute(self, compute: Callable[[EngineClient], Awaitable[_Answer]]) -> _Answer:
        async with self._handle.use() as engine:
            return await compute(engine)
