"""Responses: answered by a local model, kept, and gone on from; or relayed."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
from starlette.responses import Response

from llm_backend import errors
from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.backends.local import Answer, LocalModel
from llm_backend.contract.request import Request
from llm_backend.controllers.answer_schema import AnswerSchema, checked
from llm_backend.controllers.chat_deltas import Transcript
from llm_backend.controllers.generation import chat_from
from llm_backend.controllers.items import item_list, shown_item
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.kept_here import kept_here
from llm_backend.controllers.relay import relay
from llm_backend.controllers.response_events import ResponseState
from llm_backend.controllers.response_memory import conversation_of
from llm_backend.controllers.response_request import chat_body, named_as_sent, repeated_fields
from llm_backend.controllers.services import Services
from llm_backend.controllers.streaming import event_stream, unless_gone
from llm_backend.controllers.structured import structure_from
from llm_backend.sse import Alike, encode

__all__ = [
    "ResponseTurn",
    "cancel_response",
    "create_response",
    "delete_response",
    "get_response",
    "getinputtokencounts",
    "list_input_items",
]

Json = dict[str, Any]

DEFAULT_LIMIT = 20  # the document's
PIECES = ("response.output_text.delta", "response.reasoning_text.delta")


async def create_response(services: Services, request: Request) -> Response:
    """`POST /responses`"""
    body = request.body
    model = _model(services, request)
    if model is None:
        return await relay(services, request)
    turn = await _begin(services, body)
    answer = await unless_gone(request, model.chat(turn.chat))
    if body.get("stream"):
        return await event_stream(turn.events(answer), ending=b"", failure=turn.error_event)
    return JsonResponse(await unless_gone(request, turn.response(answer)))


@kept_here("response", "response_id")
async def get_response(services: Services, request: Request) -> Response:
    """`GET /responses/{response_id}`"""
    body = await services.responses.responses.get(request.path["response_id"])
    if request.query.get("stream"):
        raise errors.UnsupportedField(
            "Only responses that were created with `background` and `stream` are streamed again.",
            param="stream",
        )
    include = request.query.get("include") or ()
    return JsonResponse({**body, "output": [shown_item(one, include) for one in body["output"]]})


@kept_here("response", "response_id")
async def delete_response(services: Services, request: Request) -> Response:
    """`DELETE /responses/{response_id}`"""
    response_id = request.path["response_id"]
    await services.responses.responses.delete(response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


@kept_here("response", "response_id")
async def cancel_response(services: Services, request: Request) -> Response:
    """`POST /responses/{response_id}/cancel`"""
    response_id = request.path["response_id"]
    await services.responses.responses.get(response_id)
    raise errors.InvalidRequest(
        f"`{response_id}` was not created with `background`, so it cannot be cancelled."
    )


@kept_here("response", "response_id")
async def list_input_items(services: Services, request: Request) -> Response:
    """`GET /responses/{response_id}/input_items`"""
    query = request.query
    page = await services.responses.responses.input(
        request.path["response_id"],
        after=query.get("after"),
        limit=query.get("limit", DEFAULT_LIMIT),
        order=query.get("order", "desc"),
    )
    return JsonResponse(item_list(page, query.get("include") or ()))


async def getinputtokencounts(services: Services, request: Request) -> Response:
    """`POST /responses/input_tokens`: how many tokens a response's input would have."""
    body = request.body or {}
    model = _model(services, request)
    if model is None:
        return await relay(services, request)
    turn = await _begin(services, body)
    count = await model.prompt_tokens(turn.chat)
    return JsonResponse({"object": "response.input_tokens", "input_tokens": count})


def _model(services: Services, request: Request) -> LocalModel | None:
    """The local model that answers; None where the upstream does, whose beta is its own matter."""
    if request.query.get("beta"):
        if services.upstream is None:
            raise errors.UnsupportedField("OpenAI's beta is not offered here.", param="beta")
        return None
    name = (request.body or {}).get("model")
    if name is not None:
        return services.registry.for_model(name)
    if services.upstream is None:
        raise errors.InvalidRequest("`model` is missing: see GET /v1/models.", param="model")
    return None


async def _begin(services: Services, body: Json) -> "ResponseTurn":
    before = await services.responses.said_before(body)
    own = await services.responses.input_items(body.get("input"))
    with named_as_sent():
        asked = chat_body(body, before, own)
        structure = await structure_from(asked)
        choices_limit = services.settings.choices_limit
        chat = chat_from(asked, choices_limit=choices_limit, grammar=structure.grammar)
    return ResponseTurn(services, body, own, chat, structure.schema)


class ResponseTurn:
    """One response being answered: as events or whole, and kept either way. `own` are the items of
    its input."""

    def __init__(
        self,
        services: Services,
        body: Json,
        own: Sequence[Json],
        chat: Chat,
        schema: AnswerSchema | None,
    ) -> None:
        self._services = services
        self._body = body
        self._own = own
        self.chat = chat
        self._schema = schema
        self._remembers = services.memory.wants(body)
        self._is_kept = False
        self._latest: tuple[str, str | None] | None = None  # type and item of the latest piece
        conversation_id = conversation_of(body)
        self._state = ResponseState(
            {
                "id": f"resp_{uuid.uuid4().hex}",
                "object": "response",
                "created_at": int(time.time()),
                "background": False,
                "conversation": None if conversation_id is None else {"id": conversation_id},
                **repeated_fields(body, is_stored=self._remembers),
            }
        )

    async def events(self, answer: Answer) -> AsyncGenerator[bytes, None]:
        """The answer's events; before the last, or when their reader leaves, the response is
        kept."""
        async with self._ending(), answer:
            for event in self._state.start():
                yield _encoded(event)
            try:
                reason = "stop"
                async with aclosing(self._deltas(answer)) as deltas:
                    async for delta in deltas:
                        for event in self._state.take(delta):
                            yield self._alike(event)
                        reason = delta.finish_reason or reason
                for event in self._state.finish(reason, _usage(answer.usage), int(time.time())):
                    yield _encoded(event)
                await self._keep()
            except errors.ApiError as error:
                for event in self._state.fail(error.message):
                    yield _encoded(event)
                self._keep_behind()
            yield _encoded(self._state.end())

    async def response(self, answer: Answer) -> Json:
        """The whole answer, kept before it is given."""
        async with self._ending():
            try:
                reason = await self._read(answer)
                self._state.finish(reason, _usage(answer.usage), int(time.time()))
                await self._keep()
            except errors.ApiError as error:
                self._state.fail(error.message)
                self._keep_behind()
                raise
        return self._state.response

    def error_event(self, error: errors.ApiError) -> bytes:
        """What a stream ends with that a mistake of the server broke."""
        return _encoded(self._state.error(error.code, error.message, error.param))

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Whatever happens within, the response is kept as far as it came."""
        try:
            yield
        finally:
            if not self._is_kept:
                self._state.leave()
                self._keep_behind()

    async def _read(self, answer: Answer) -> str:
        """Take all that is said; gives why it ended."""
        transcript, reason = Transcript(), "stop"
        try:
            async with answer, aclosing(self._deltas(answer)) as deltas:
                async for delta in deltas:
                    transcript.add(delta)
                    reason = delta.finish_reason or reason
        finally:
            for delta in transcript.deltas():
                self._state.take(delta)
        return reason

    def _deltas(self, answer: Answer) -> AsyncGenerator[ChatDelta, None]:
        deltas = answer.chat(self.chat)
        return deltas if self._schema is None else checked(deltas, self._schema)

    def _alike(self, event: Json) -> bytes:
        """The event, checked against the document only if it is the first of its kind and item."""
        kind = (event["type"], event.get("item_id"))
        encoded = _encoded(event)
        if event["type"] in PIECES and not event.get("logprobs"):
            if kind == self._latest:
                return Alike(encoded)
            self._latest = kind
        return encoded

    async def _keep(self) -> None:
        memory, response = self._services.responses, self._state.response
        if self._remembers:
            await memory.remember(self._body, response, self._own)
        else:
            await memory.append(self._body, response, self._own)
        self._is_kept = True

    def _keep_behind(self) -> None:
        self._is_kept = True
        if self._remembers:
            self._services.responses.remember_behind(self._body, self._state.response, self._own)


def _encoded(event: Json) -> bytes:
    return encode(orjson.dumps(event), event["type"])


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
