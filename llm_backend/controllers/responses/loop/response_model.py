"""Interface of a model that answers responses."""

from collections.abc import Sequence
from typing import Protocol

from llm_backend.backends.base import Chat
from llm_backend.controllers.generation.checked_answer import ModelAnswer
from llm_backend.controllers.generation.truncation import TokenCounter
from llm_backend.controllers.responses.input.resolved_request import ModelDefaults


class ResponseModel(TokenCounter, ModelDefaults, Protocol):
    """A model. `vector_stores` are the ids of the vector stores configured for it."""

    @property
    def vector_stores(self) -> Sequence[str]: ...
    async def chat(self, request: Chat) -> ModelAnswer: ...
