"""Response run: a resolved request that a model has admitted, and the response built from it."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.controllers.chat.events import Transcript
from llm_backend.controllers.moderations.moderated_answers import ModeratedAnswer, moderation_of
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.chat_request import (
    echoed_fields,
    translate_error_paths,
)
from llm_backend.controllers.responses.input.context_management import cut_if_due
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import fitting
from llm_backend.controllers.responses.loop.reasoning_summary import ReasoningSummary, SummaryText
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.responses.loop.tool_loop import (
    Happening,
    RoundEnded,
    ToolLoop,
    WithheldToolLoop,
)
from llm_backend.controllers.responses.response_memory import conversation_of
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject

__all__ = ["ResponseRun", "new_head", "open_run", "usage_object"]

Body = Mapping[str, Any]


def new_head(body: Body, *, is_stored: bool, passages_limit: int) -> JsonObject:
    """Returns the fields of a new response that do not change; see `echoed_fields`."""
    conversation_id = conversation_of(body)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "background": bool(body.get("background")),
        "conversation": None if conversation_id is None else {"id": conversation_id},
        **echoed_fields(body, is_stored=is_stored, passages_limit=passages_limit),
    }


@asynccontextmanager
async def open_run(
    services: Services,
    model: ResponseModel,
    question: ResolvedRequest,
    head: Body,
    *,
    number: int = 0,
) -> AsyncIterator["ResponseRun"]:
    """Retrieves, compacts, truncates and moderates a resolved request and has the model admit it.
    `number` events of the response were sent before. Leaving the context releases the engine's
    resources."""
    limit = _calls_limit(services, question.body)
    question = await question.retrieved(services, model.vector_stores)
    if question.retrieval is not None:
        head = {**head, "retrieval": question.retrieval.told()}
    state = ResponseState(
        head,
        include=question.body.get("include") or (),
        annotate=question.annotations,
        clients=question.clients,
        number=number,
    )
    with translate_error_paths(question.tool_places):
        cut = await cut_if_due(model, question)
        question = await fitting(model, question)
    moderation = moderation_of(services, question.body, question.own_messages)
    if moderation is not None and await moderation.withholds():
        yield ResponseRun(question, WithheldToolLoop(), state, moderation)
        return
    thoughts = await ReasoningSummary.wanted(model, question.body)
    async with ToolLoop(
        model,
        question,
        calls_limit=limit,
        tries=services.settings.structured_tries,
        cut=cut,
        moderation=moderation,
        thoughts=thoughts,
    ) as rounds:
        with translate_error_paths(question.tool_places):
            await rounds.admit()
        yield ResponseRun(question, rounds, state, moderation)


class ResponseRun:
    """Feeds the events of a tool loop to the response's state: as a stream, or all at once."""

    def __init__(
        self,
        question: ResolvedRequest,
        rounds: ToolLoop | WithheldToolLoop,
        state: ResponseState,
        moderation: ModeratedAnswer | None,
    ) -> None:
        self.question = question
        self.state = state
        self._rounds = rounds
        self._moderation = moderation

    async def events(self) -> AsyncGenerator[JsonObject, None]:
        """Yields all events but the last, which is the state's `end`."""
        async with aclosing(self._rounds.said(self._output)) as said:
            async for happening in said:
                for event in self._take(happening):
                    yield event
        for event in await self._finish():
            yield event

    async def whole(self) -> None:
        """Runs the response to its end without events. Deltas are joined before the state takes
        them: no client reads the single ones."""
        transcript = Transcript()

        def said_until_now() -> Sequence[JsonObject]:
            nonlocal transcript
            for delta in transcript.deltas():
                self.state.take(delta)
            transcript = Transcript()
            return self._output()

        try:
            async with aclosing(self._rounds.said(said_until_now)) as said:
                async for happening in said:
                    if isinstance(happening, ChatDelta):
                        transcript.add(happening)
                    else:
                        said_until_now()
                        self._take(happening)
        finally:
            said_until_now()
        await self._finish()

    def _output(self) -> Sequence[JsonObject]:
        return self.state.output

    def _take(self, happening: Happening) -> list[JsonObject]:
        match happening:
            case ChatDelta():
                return self.state.take(happening)
            case SummaryText(text=text):
                return self.state.sum_up(text)
            case RoundEnded():
                return self.state.pause()
            case _:
                return self.state.tell(happening)

    async def _finish(self) -> list[JsonObject]:
        usage = usage_object(self._rounds.usage)
        more: JsonObject = {}
        if self._moderation is not None:
            more["moderation"] = await self._moderation.told(results_in_lists=False)
        if self._rounds.left_out:
            more["truncated_items"] = self._rounds.left_out
        return self.state.finish(self._rounds.reason, usage, int(time.time()), more)


def _calls_limit(services: Services, body: Body) -> int:
    """Returns the most calls of server tools that this response may run."""
    limit = services.settings.tool_calls_limit
    wanted = body.get("max_tool_calls")
    return limit if wanted is None else min(limit, int(wanted))


def usage_object(usage: Usage) -> JsonObject:
    """Returns the `usage` object of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
