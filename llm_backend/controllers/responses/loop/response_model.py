"""Interface of a model that answers responses."""

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Protocol, Self

from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.controllers.responses.input.resolved_request import MediaSource
from llm_backend.controllers.responses.input.truncation import TokenCounter

__all__ = ["ModelAnswer", "ResponseModel"]


class ModelAnswer(Protocol):
    """A generation that a model has admitted; leaving its `async with` releases its resources."""

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
    """A model. `vector_stores` are the ids of the vector stores configured for it."""

    @property
    def vector_stores(self) -> Sequence[str]: ...
    async def chat(self, request: Chat) -> ModelAnswer: ...
