"""What answering a response needs of a model."""

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Protocol, Self

from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.controllers.responses.input.resolved_request import MediaSource
from llm_backend.controllers.responses.input.truncation import TokenCounter

__all__ = ["ModelAnswer", "ResponseModel"]


class ModelAnswer(Protocol):
    """An answer that a model has begun; leaving its `async with` frees what it holds."""

    @property
    def usage(self) -> Usage: ...
    def chat(self, request: Chat) -> AsyncGenerator[ChatDelta, None]: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class ResponseModel(TokenCounter, MediaSource, Protocol):
    """A model. `vector_stores` are the ids of those of its own."""

    @property
    def vector_stores(self) -> Sequence[str]: ...
    async def chat(self, request: Chat) -> ModelAnswer: ...
