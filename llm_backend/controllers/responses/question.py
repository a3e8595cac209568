"""What a response's body asks: read from the store, put to the model as a chat."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llm_backend.backends.base import Chat, Message
from llm_backend.controllers.answer_schema import AnswerSchema
from llm_backend.controllers.generation import chat_from
from llm_backend.controllers.messages import flatten_messages
from llm_backend.controllers.responses.request import (
    chat_body,
    chat_messages,
    named_as_sent,
    refuse_others,
)
from llm_backend.controllers.responses.server_tools import OpenTools
from llm_backend.controllers.responses.tools import allowed_names, chat_tools
from llm_backend.controllers.services import Services
from llm_backend.controllers.structured import structure_from

__all__ = ["Question", "asked"]

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One response's question. `own` are the items of its input, `before` those that it goes on
    from; `schema` is what a whole answer is held against, `allowed_names` what may be called."""

    body: Mapping[str, Any]
    before: Sequence[Json]
    own: Sequence[Json]
    chat: Chat
    schema: AnswerSchema | None
    tools: OpenTools
    allowed_names: frozenset[str] | None

    def messages(self, output: Sequence[Json]) -> Sequence[Message]:
        """The chat's messages once these items have been put out."""
        items = [*self.before, *self.own, *output]
        return flatten_messages(chat_messages(self.body, items, (), self.tools.readers))


@asynccontextmanager
async def asked(
    services: Services, body: Mapping[str, Any], own: Sequence[Json] | None = None
) -> AsyncIterator[Question]:
    """The question that this body asks, its tools open; `own` are the items of its input where they
    are known. Raises `ApiError` that names the field."""
    refuse_others(body)
    before = await services.responses.said_before(body)
    if own is None:
        own = await services.responses.input_items(body.get("input"))
    model = services.registry.for_model(body["model"])
    async with services.server_tools.opened(body, [*before, *own]) as tools:
        fields, places = chat_tools(body, tools)
        with named_as_sent(places):
            messages = chat_messages(body, before, own, tools.readers)
            asked = chat_body(body, messages, fields)
            asked = asked if model is None else model.filled(asked)
            structure = await structure_from(asked)
            choices_limit = services.settings.choices_limit
            chat = chat_from(asked, choices_limit=choices_limit, grammar=structure.grammar)
        yield Question(
            body=body,
            before=before,
            own=own,
            chat=chat,
            schema=structure.schema,
            tools=tools,
            allowed_names=allowed_names(body, tools),
        )
