"""Chat completions, answered by a local model or relayed, and stored in either case."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, cast

import orjson
from starlette.responses import Response

from llm_backend.backends.base import Chat, ChatDelta
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.checked_answer import CheckedAnswer
from llm_backend.controllers.generation.custom_calls import (
    CustomCalls,
    custom_names,
    translate_error_names,
)
from llm_backend.controllers.generation.deprecated_functions import (
    as_function_calls,
    translate_function_errors,
    with_tools,
)
from llm_backend.controllers.generation.field_aliases import with_common_names
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.structured_output import (
    StructuredOutput,
    schema_limits,
    structure_from,
)
from llm_backend.controllers.generation.tool_call_ids import check_messages
from llm_backend.controllers.generation.truncation import truncate_chat
from llm_backend.controllers.moderations.moderated_answers import (
    ModeratedAnswer,
    WithheldStream,
    moderation_of,
)
from llm_backend.controllers.relay.bridge.bridged_model import BridgedAnswer, BridgedModel
from llm_backend.controllers.relay.relayed_chat import relay_chat
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.chat_events import ChatEvents, ChatTranscript
from llm_backend.controllers.rendering.chat_fold import fold
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.obfuscation import obfuscation_for
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.retrieval.chat_retrieval import (
    Retrieval,
    retrieve,
    translate_message_paths,
)
from llm_backend.engine.messages import Priority
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.sse import encode

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

AnyAnswer = AdmittedGeneration | BridgedAnswer | CheckedAnswer | WithheldStream


async def create_chat_completion(services: Services, request: ApiRequest) -> Response:
    """`POST /chat/completions`"""
    return await answer_by_route(
        services, request, local=_answer, relay_with=relay_chat, bridged=_answer
    )


async def _answer(
    services: Services, request: ApiRequest, model: LocalModel | BridgedModel
) -> Response:
    body: api.CreateChatCompletionRequest = request.body
    turn, answer = await begin_turn(services, request, model)
    if body.get("stream"):
        return await event_stream(turn.events(answer))
    return JsonResponse(await cancel_on_disconnect(request, turn.completion(answer)))


async def complete_chat(
    services: Services, request: ApiRequest, model: LocalModel
) -> "api.CreateChatCompletionResponse":
    """Returns the whole completion of a chat by a local model."""
    turn, answer = await begin_turn(services, request, model)
    return await cancel_on_disconnect(request, turn.completion(answer))


async def begin_turn(
    services: Services, request: ApiRequest, model: LocalModel | BridgedModel
) -> tuple["ChatTurn", AnyAnswer]:
    """Checks messages and tools, applies the model's defaults, retrieves passages, builds,
    truncates and moderates the chat, and waits until the model admits it. Raises the errors of each
    step."""
    body: api.CreateChatCompletionRequest = request.body
    await offload(check_messages, body["messages"])
    with_defaults = model.with_defaults(with_common_names(with_tools(body)))
    is_checked = not isinstance(model, BridgedModel)  # an upstream enforces strict functions itself
    limits = schema_limits(services.settings)
    structure = await structure_from(with_defaults, limits) if is_checked else StructuredOutput()
    limit = services.settings.choices_limit
    chat_body, retrieval = await retrieve(services, with_defaults, model.vector_stores, model.meter)
    translates_paths = translate_message_paths(retrieval, body["messages"])
    with translates_paths, translate_function_errors(body):
        chat = await offload(chat_from, chat_body, choices_limit=limit, structure=structure)
    truncated_messages = 0
    if body.get("truncation") == "auto":
        chat, truncated_messages = await cancel_on_disconnect(request, truncate_chat(model, chat))
    moderation = moderation_of(services, body, lambda: body["messages"], model.meter)
    names = custom_names(with_defaults)
    turn = ChatTurn(services, body, chat, structure, retrieval, names, moderation)
    turn.truncated_messages = truncated_messages
    if moderation is not None and await cancel_on_disconnect(request, moderation.blocks_answer()):
        return turn, WithheldStream()
    translates_paths = translate_message_paths(retrieval, body["messages"])
    with translates_paths, translate_function_errors(body), translate_error_names(with_defaults):
        return turn, turn.check_schema(await cancel_on_disconnect(request, model.chat(chat)), model)


class ChatTurn:
    """A chat that is being answered, streamed or whole, and is stored in either case."""

    def __init__(
        self,
        services: Services,
        body: "api.CreateChatCompletionRequest",
        chat: Chat,
        structure: StructuredOutput,
        retrieval: Retrieval | None,
        custom_names: frozenset[str],
        moderation: ModeratedAnswer | None,
    ) -> None:
        self.truncated_messages = 0  # number of oldest messages left out of the prompt
        self._retrieval = retrieval
        self._chat_recorder = services.chat_recorder
        self._body = body
        self._chat = chat
        self._structure = structure
        self._attempts = services.settings.structured_tries
        self._stores_chat = services.chat_recorder.should_store(body)
        options = body.get("stream_options") or {}
        self._includes_usage = bool(options.get("include_usage"))
        default = services.settings.obfuscate_streams
        self._obfuscation = obfuscation_for(options, default=default)
        self._head = chunks.ChunkHead(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            kind="chat.completion.chunk",
            created_at=int(time.time()),
            model=body["model"],
            includes_usage=self._includes_usage,
            service_tier="flex" if chat.priority is Priority.BATCH else "default",
        )
        self._transcript = ChatTranscript()
        self._custom_names = custom_names
        self._moderation = moderation
        self._moderation_fields: JsonObject = {}  # added to the final completion

    def check_schema(
        self, answer: AdmittedGeneration | BridgedAnswer, model: LocalModel | BridgedModel
    ) -> AdmittedGeneration | BridgedAnswer | CheckedAnswer:
        """Wraps the answer in validation against its schemas, unless a stop sequence may cut it
        off. An upstream's answer is not retried."""
        structure, limits = self._structure, self._chat.limits
        is_free = structure.schema is None and not structure.calls
        if is_free or limits.stop or limits.stop_token_ids:
            return answer
        attempts = self._attempts if isinstance(model, LocalModel) else 1
        return CheckedAnswer(answer, structure, model.chat, attempts=attempts)

    async def events(self, answer: AnyAnswer) -> AsyncGenerator[bytes, None]:
        """Yields the encoded events; at their end, or on disconnect, the chat is stored."""
        events = ChatEvents(self._head, self._transcript, self._obfuscation)
        async with self._storing(answer):
            async with answer, aclosing(self._deltas(answer)) as deltas:
                # for each choice whose first chunk has not been sent, its deltas so far
                waiting: dict[int, list[ChatDelta]] = {}
                if self._chat.tools:
                    # No bytes: sends the response's head immediately. The first chunk waits for a
                    # delta that has more than logprobs: its `content` is null if a call or
                    # reasoning comes first.
                    yield b""
                    waiting = {choice: [] for choice in range(self._chat.limits.choices)}
                else:
                    for choice in range(self._chat.limits.choices):
                        yield events.encode_role_chunk(self._role_chunk(choice))
                async for delta in deltas:
                    begun = waiting.get(delta.choice)
                    if begun is None:
                        yield events.encode_delta(delta)
                        continue
                    begun.append(delta)
                    if _is_without_text(delta):
                        continue
                    del waiting[delta.choice]
                    yield events.encode_role_chunk(self._role_chunk(delta.choice, delta))
                    for one in begun:
                        yield events.encode_delta(one)
            await self._judge()
            if self._moderation_fields:
                yield encode(orjson.dumps(self._head.chunk([]) | self._moderation_fields))
            if self._includes_usage:
                yield encode(orjson.dumps(chunks.usage_chunk(self._head, answer.usage)))

    async def completion(self, answer: AnyAnswer) -> "api.CreateChatCompletionResponse":
        """Returns the whole completion, after storing it."""
        async with aclosing(self.stored_deltas(answer)) as deltas:
            async for _ in deltas:
                pass  # the transcript collects the deltas
        return self._completion(answer)

    async def stored_deltas(self, answer: AnyAnswer) -> AsyncGenerator[ChatDelta, None]:
        """Yields the deltas; at their end, or on disconnect, the chat is stored."""
        async with self._storing(answer):
            async with answer, aclosing(self._deltas(answer)) as deltas:
                async for delta in deltas:
                    self._transcript.add(delta)
                    yield delta
            await self._judge()

    async def _judge(self) -> None:
        if self._moderation is not None:
            self._moderation_fields = {
                "moderation": await self._moderation.report(results_in_lists=True)
            }

    def _deltas(self, answer: AnyAnswer) -> AsyncGenerator[ChatDelta, None]:
        """Returns the deltas of the answer, moderated if the request asks for it."""
        deltas = answer.chat_deltas(self._chat)
        if self._body.get("functions"):
            deltas = as_function_calls(deltas)
        if self._custom_names:
            deltas = CustomCalls(self._custom_names).translate(deltas)
        return deltas if self._moderation is None else self._moderation.filter_deltas(deltas)

    @asynccontextmanager
    async def _storing(self, answer: AnyAnswer) -> AsyncIterator[None]:
        is_complete = False
        try:
            yield
            is_complete = True
            if self._stores_chat:
                await self._chat_recorder.store(self._body, self._completion(answer))
        finally:
            if self._stores_chat and not is_complete:
                self._chat_recorder.store_in_background(self._body, self._completion(answer))

    def _role_chunk(
        self, choice: int, first: ChatDelta | None = None
    ) -> "api.CreateChatCompletionStreamResponse":
        """Returns the first chunk of a choice; `first` is the choice's first delta, if known."""
        content: str | None = ""
        if first is not None and not first.content and (first.tool_calls or first.reasoning):
            content = None
        retrieval = self._retrieval
        more = {} if retrieval is None else {"annotations": retrieval.annotations()}
        chunk = chunks.role_chunk(self._head, choice, content=content, **more)
        if retrieval is not None:
            chunk["retrieval"] = retrieval.render()
        if self.truncated_messages:
            chunk["truncated_messages"] = self.truncated_messages
        return chunk

    def _completion(self, answer: AnyAnswer) -> "api.CreateChatCompletionResponse":
        """Folds the chunks of the answer: streamed and whole answers cannot differ."""
        delta_chunks = [chunks.chat_chunk(self._head, delta) for delta in self._transcript.deltas()]
        usage = chunks.usage_object(answer.usage)
        roles = [self._role_chunk(choice) for choice in range(self._chat.limits.choices)]
        completion = cast("api.CreateChatCompletionResponse", fold([*roles, *delta_chunks]))
        if self._chat.sampling.logprobs is not None:
            for choice in completion["choices"]:
                choice["logprobs"] = choice["logprobs"] or chunks.chat_logprobs(())
        completion["usage"] = usage
        return cast("api.CreateChatCompletionResponse", {**completion, **self._moderation_fields})


def _is_without_text(delta: ChatDelta) -> bool:
    """True for a delta of tokens alone: their text, or the call that it begins, follows."""
    parts = (delta.content, delta.reasoning, delta.refusal, delta.tool_calls, delta.finish_reason)
    return not any(parts)
