"""Response run: a resolved request that a model has admitted, and the response built from it."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.controllers.moderations.moderated_answers import ModeratedAnswer, moderation_of
from llm_backend.controllers.rendering.chat_events import ChatTranscript
from llm_backend.controllers.response_items.items import conversation_of
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.chat_request import (
    echoed_fields,
    translate_error_paths,
)
from llm_backend.controllers.responses.input.context_management import plan_compaction
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import truncate
from llm_backend.controllers.responses.loop.reasoning_summary import ReasoningSummary, SummaryText
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.responses.loop.tool_loop import (
    LoopEvent,
    RoundEnded,
    ToolLoop,
    WithheldToolLoop,
)
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


def new_head(body: "api.CreateResponse", *, is_stored: bool, passages_limit: int) -> JsonObject:
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
    resolved: ResolvedRequest,
    head: JsonMapping,
    *,
    number: int = 0,
) -> AsyncIterator["ResponseRun"]:
    """Retrieves, compacts, truncates and moderates a resolved request, and waits until the model
    admits it. `number` events of the response were sent before. Leaving the context releases the
    engine's resources."""
    limit = _calls_limit(services, resolved.body)
    resolved = await resolved.with_retrieval(services, model.vector_stores)
    if resolved.retrieval is not None:
        head = {**head, "retrieval": resolved.retrieval.render()}
    state = ResponseState(
        head,
        include=resolved.body.get("include") or (),
        annotate=resolved.annotations,
        client_tools=resolved.client_tools,
        number=number,
    )
    with translate_error_paths(resolved.tool_indices):
        cut = await plan_compaction(model, resolved)
        resolved = await truncate(model, resolved)
    moderation = moderation_of(services, resolved.body, resolved.input_messages, model.meter)
    if moderation is not None and await moderation.blocks_answer():
        yield ResponseRun(resolved, WithheldToolLoop(), state, moderation)
        return
    reasoning_summary = await ReasoningSummary.from_body(model, resolved.body)
    async with ToolLoop(
        model,
        resolved,
        calls_limit=limit,
        structured_tries=services.settings.structured_tries,
        cut=cut,
        moderation=moderation,
        reasoning_summary=reasoning_summary,
    ) as tool_loop:
        with translate_error_paths(resolved.tool_indices):
            await tool_loop.admit()
        yield ResponseRun(resolved, tool_loop, state, moderation)


class ResponseRun:
    """Feeds the events of a tool loop to the response's state: as a stream, or all in one call."""

    def __init__(
        self,
        resolved: ResolvedRequest,
        tool_loop: ToolLoop | WithheldToolLoop,
        state: ResponseState,
        moderation: ModeratedAnswer | None,
    ) -> None:
        self.resolved = resolved
        self.state = state
        self._tool_loop = tool_loop
        self._moderation = moderation

    async def events(self) -> AsyncGenerator[JsonObject, None]:
        """Yields all events but the last, which is the state's `end`."""
        async with aclosing(self._tool_loop.events(self._output)) as loop_events:
            async for loop_event in loop_events:
                for event in self._apply(loop_event):
                    yield event
        for event in await self._finish():
            yield event

    async def run_to_end(self) -> None:
        """Runs the response to its end without events. Deltas are joined before the state takes
        them, because no client reads them one by one."""
        transcript = ChatTranscript()

        def flush_deltas() -> Sequence[JsonObject]:
            nonlocal transcript
            for delta in transcript.deltas():
                self.state.add_delta(delta)
            transcript = ChatTranscript()
            return self._output()

        try:
            async with aclosing(self._tool_loop.events(flush_deltas)) as loop_events:
                async for event in loop_events:
                    if isinstance(event, ChatDelta):
                        transcript.add(event)
                    else:
                        flush_deltas()
                        self._apply(event)
        finally:
            flush_deltas()
        await self._finish()

    def _output(self) -> Sequence[JsonObject]:
        return self.state.output

    def _apply(self, event: LoopEvent) -> list[JsonObject]:
        match event:
            case ChatDelta():
                return self.state.add_delta(event)
            case SummaryText(text=text):
                return self.state.add_summary(text)
            case RoundEnded():
                return self.state.close_item()
            case _:
                return self.state.add_tool_event(event)

    async def _finish(self) -> list[JsonObject]:
        usage = usage_object(self._tool_loop.usage)
        more: JsonObject = {}
        if self._moderation is not None:
            more["moderation"] = await self._moderation.report(results_in_lists=False)
        if self._tool_loop.truncated_items:
            more["truncated_items"] = self._tool_loop.truncated_items
        return self.state.finish(self._tool_loop.reason, usage, int(time.time()), more)


def _calls_limit(services: Services, body: "api.CreateResponse") -> int:
    """Returns the maximum number of calls of server tools in this response."""
    limit = services.settings.tool_calls_limit
    requested = body.get("max_tool_calls")
    return limit if requested is None else min(limit, int(requested))


def usage_object(usage: Usage) -> "api.ResponseUsage":
    """Returns the `usage` object of a response."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
