"""Chat completions: answered by a local model or relayed, and remembered either way."""

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from llm_backend.backends.base import Chat, Priority
from llm_backend.backends.local import Answer
from llm_backend.contract.request import Request
from llm_backend.controllers import render
from llm_backend.controllers.fold import ChatFold
from llm_backend.controllers.generation import chat_from
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.relayed_chat import relay_chat
from llm_backend.controllers.services import Services
from llm_backend.controllers.streaming import event_stream, unless_gone

__all__ = ["create_chat_completion"]

Json = dict[str, Any]


async def create_chat_completion(services: Services, request: Request) -> Response:
    """`POST /chat/completions`"""
    body = request.body
    model = services.registry.for_model(body["model"])
    if model is None:
        return await relay_chat(services, request)
    chat = chat_from(body, choices_limit=services.settings.choices_limit)
    remembers = services.memory.wants(body)
    turn = _Turn(services, body, chat, remembers=remembers)
    answer = await unless_gone(request, model.chat(chat))
    if body.get("stream"):
        return await event_stream(turn.chunks(answer))
    return JsonResponse(await unless_gone(request, turn.completion(answer)))


class _Turn:
    """One chat being answered: its chunks, folded into the completion that is remembered."""

    def __init__(self, services: Services, body: Json, chat: Chat, *, remembers: bool) -> None:
        self._memory = services.memory
        self._body = body
        self._chat = chat
        self._remembers = remembers
        self._tells_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._head = render.Head(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            kind="chat.completion.chunk",
            created_at=int(time.time()),
            model=body["model"],
            tells_usage=self._tells_usage,
            service_tier="flex" if chat.priority is Priority.BATCH else "default",
        )
        self._fold = ChatFold()

    async def chunks(self, answer: Answer) -> AsyncGenerator[Json, None]:
        """The answer's chunks; at their end, or when their reader leaves, the chat is stored."""
        is_complete = False
        try:
            async with answer, aclosing(self._chunks(answer)) as chunks:
                async for chunk in chunks:
                    self._fold.add(chunk)
                    yield chunk
            if self._tells_usage:
                yield render.usage_chunk(self._head, answer.usage)
            is_complete = True
            await self._remember(answer)
        finally:
            if self._remembers and not is_complete:
                self._memory.remember_behind(self._body, self._completion(answer))

    async def completion(self, answer: Answer) -> Json:
        """The whole answer, remembered before it is given."""
        async with aclosing(self.chunks(answer)) as chunks:
            async for _ in chunks:
                pass
        return self._completion(answer)

    async def _chunks(self, answer: Answer) -> AsyncGenerator[Json, None]:
        for choice in range(self._chat.limits.choices):
            yield render.role_chunk(self._head, choice)
        async for delta in answer.chat(self._chat):
            yield render.chat_chunk(self._head, delta)

    async def _remember(self, answer: Answer) -> None:
        if self._remembers:
            await self._memory.remember(self._body, self._completion(answer))

    def _completion(self, answer: Answer) -> Json:
        completion = self._fold.completion()
        completion["usage"] = render.usage_object(answer.usage)
        return completion
