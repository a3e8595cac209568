"""Resolved request of a response: stored items, files, prompts and tools as a chat."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from llm_backend.backends.base import Chat, Meter
from llm_backend.controllers.generation.flat_messages import flatten_messages
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.structured_output import (
    StructuredOutput,
    schema_limits,
    structure_from,
)
from llm_backend.controllers.generation.tool_call_ids import check_items
from llm_backend.controllers.relay.bridge.bridged_model import BridgedModel
from llm_backend.controllers.response_items.client_tools import ClientTool
from llm_backend.controllers.response_items.compaction_items import reading_order
from llm_backend.controllers.response_items.input_parts import FetchedFiles, check_file_count
from llm_backend.controllers.response_items.items import chat_part, conversation_of, messages_from
from llm_backend.controllers.responses.input.chat_request import (
    chat_body,
    chat_messages,
    translate_error_paths,
)
from llm_backend.controllers.responses.input.prompts import prompt_messages
from llm_backend.controllers.responses.input.response_fields import check_response_fields
from llm_backend.controllers.responses.input.tools import chat_tools
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.listed_items import OF_CONVERSATIONS, OF_RESPONSES
from llm_backend.controllers.services.server_tools import OpenTools
from llm_backend.controllers.vector_stores.retrieval.chat_retrieval import (
    Retrieval,
    retrieve_from_model_stores,
)
from llm_backend.json_types import JsonMappingT, JsonObject
from llm_backend.offload import add_request_bytes, offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


class ModelDefaults(Protocol):
    """A model with defaults of its own for omitted fields. Images are fetched only if it
    `accepts_images`. `meter` counts the usage of the request."""

    @property
    def meter(self) -> Meter | None: ...
    @property
    def accepts_images(self) -> bool: ...
    def with_defaults(self, body: JsonMappingT) -> JsonMappingT: ...


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """Resolved request of one response. `input_items` are the items of its input, and
    `context_items` those of the conversation. `items` are all of them with file contents, as models
    read them; the chat leaves out the oldest `truncated_items` after the instructions at their
    beginning. `leading_messages` come before the items. `structure` validates a whole answer.
    `client_tools` are the client's tools by their names in the chat. `tool_indices` has, for each
    tool of the chat, its index in the body. `allowed_names` are the functions that may be called.
    `retrieval` holds passages from the model's own vector stores."""

    body: "api.CreateResponse"
    leading_messages: Sequence[JsonObject]
    context_items: Sequence[JsonObject]
    input_items: Sequence[JsonObject]
    items: Sequence[JsonObject]
    chat: Chat
    structure: StructuredOutput
    tools: OpenTools
    client_tools: Mapping[str, ClientTool]
    allowed_names: frozenset[str] | None
    meter: Meter | None
    tool_indices: Sequence[int] = ()
    truncated_items: int = 0
    retrieval: Retrieval | None = None

    async def chat_after(self, output: Sequence[Mapping[str, Any]]) -> Chat:
        """Returns the chat that follows these output items."""
        return await offload(self._chat_after, output)

    def _chat_after(self, output: Sequence[Mapping[str, Any]]) -> Chat:
        messages = self._messages([*self.items, *output], self.truncated_items)
        with_passages = messages if self.retrieval is None else self.retrieval.add_to(messages)
        return replace(self.chat, messages=flatten_messages(with_passages))

    async def with_retrieval(
        self, services: Services, model_store_ids: Sequence[str]
    ) -> "ResolvedRequest":
        """Returns a copy with passages from the model's own vector stores, unless the client uses
        the server tool `file_search`; see `controllers.vector_stores.retrieval`."""
        searches = any(tool["type"] == "file_search" for tool in self.body.get("tools") or ())
        if searches or not model_store_ids:
            return self
        messages = await offload(self._messages, self.items)
        retrieval = await retrieve_from_model_stores(
            services, messages, model_store_ids, self.meter
        )
        if not retrieval:
            return self
        extended = replace(self, retrieval=retrieval)
        return replace(extended, chat=await extended.chat_after(()))

    def input_messages(self) -> list[JsonObject]:
        """Returns the messages of the input, in the form of a chat."""
        items = self.items[len(self.context_items) :]
        return messages_from((), [item for item in items if item["type"] == "message"])

    def annotations(self, text: str) -> list[JsonObject]:
        """Returns the document's annotations of a finished message."""
        retrieved = [] if self.retrieval is None else self.retrieval.annotations(text)
        return [*self.tools.annotations(text), *retrieved]

    @property
    def instructions_count(self) -> int:
        """Number of messages with instructions before all other items."""
        others = (
            index
            for index, item in enumerate(self.items)
            if item["type"] != "message" or item["role"] not in ("system", "developer")
        )
        return next(others, len(self.items))

    def _messages(self, items: Sequence[Mapping[str, Any]], left_out: int = 0) -> list[JsonObject]:
        """Returns the messages of the items, without the oldest `left_out` after the instructions.
        Errors name items of the input by their index, unless some of these are left out."""
        begin, context_end = self.instructions_count, len(self.context_items)
        kept = [*items[:begin], *items[begin + left_out :]]
        is_input_whole = not left_out or begin + left_out <= context_end
        input_begin = context_end - left_out if is_input_whole else len(kept)
        return chat_messages(
            self.body,
            kept[:input_begin],
            kept[input_begin:],
            leading_messages=self.leading_messages,
            readers=self.tools.readers,
        )

    def without_oldest(self, count: int) -> "ResolvedRequest":
        """Returns a copy whose chat leaves out the oldest `count` items after the instructions."""
        return replace(self, truncated_items=count)


@asynccontextmanager
async def open_request(
    services: Services,
    model: ModelDefaults,
    body: "api.CreateResponse",
    input_items: Sequence[JsonObject] | None = None,
) -> AsyncIterator[ResolvedRequest]:
    """Resolves a body and opens its server tools; `input_items` are the items of its input, if
    they are already resolved. Raises an `ApiError` that names the field."""
    check_response_fields(body)
    leading_messages = await prompt_messages(
        body.get("prompt"), services.settings.prompts, partial(_chat_part, services)
    )
    context_items = await services.responses.load_context(body)
    if input_items is None:
        input_items = await services.responses.resolve_items(body.get("input"))
        lists = (
            [OF_RESPONSES] if conversation_of(body) is None else [OF_RESPONSES, OF_CONVERSATIONS]
        )
        await services.listed_items.check(input_items, "input", *lists)
    add_request_bytes(body, context_items, input_items)
    await offload(check_items, context_items, input_items)
    await offload(check_file_count, input_items, "input", services.settings.input_files_limit)
    read_context = await _read_context(services, context_items)
    input_items, read_input = await _read_input(
        services, input_items, fetches_images=model.accepts_images
    )
    async with services.server_tools.open(
        body, [*context_items, *input_items], model.meter
    ) as tools:
        chats = await offload(chat_tools, body, tools)
        with translate_error_paths(chats.indices):
            messages = await offload(
                chat_messages,
                body,
                read_context,
                read_input,
                leading_messages=leading_messages,
                readers=tools.readers,
            )
            chat_request = model.with_defaults(chat_body(body, messages, chats.fields))
            structure = StructuredOutput()
            if not isinstance(model, BridgedModel):  # an upstream enforces strict functions itself
                structure = await structure_from(chat_request, schema_limits(services.settings))
            choices_limit = services.settings.choices_limit
            chat = await offload(
                chat_from, chat_request, choices_limit=choices_limit, structure=structure
            )
        yield ResolvedRequest(
            body=body,
            leading_messages=leading_messages,
            context_items=context_items,
            input_items=input_items,
            items=[*read_context, *read_input],
            chat=chat,
            structure=structure,
            tools=tools,
            client_tools=chats.client_tools,
            allowed_names=chats.allowed_names,
            meter=model.meter,
            tool_indices=chats.indices,
        )


async def _read_input(
    services: Services, items: Sequence[JsonObject], *, fetches_images: bool
) -> tuple[Sequence[JsonObject], Sequence[JsonObject]]:
    """Returns the input's items twice: with fetched files for the store, and with file contents
    for the model."""
    fetched = FetchedFiles(limit_bytes=services.settings.fetched_kept_bytes)
    texts = await services.file_texts.read(items, "input", fetched)
    read = await services.input_images.read(texts, "input", fetched if fetches_images else None)
    return await offload(fetched.add_to, items, "input"), read


async def _read_context(services: Services, items: Sequence[JsonObject]) -> Sequence[JsonObject]:
    """Returns items of earlier turns with file contents. Files of items that a compaction replaces
    are not read."""
    indices, read_items = reading_order(items), list(items)
    texts = await services.file_texts.read([items[index] for index in indices])
    read = await services.input_images.read(texts)
    for index, item in zip(indices, read, strict=True):
        read_items[index] = item
    return read_items


async def _chat_part(services: Services, part: Mapping[str, Any], where: str) -> JsonObject:
    """Returns the chat part for a part with an image or file; `where` is its path."""
    reader = services.file_texts if part["type"] == "input_file" else services.input_images
    return chat_part(await reader.read_part(part, where), where)
