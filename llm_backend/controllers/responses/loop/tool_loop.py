"""Tool loop of a response: asks the model, runs its calls of server tools, and asks it again, until
the model makes no such call or the limit of calls is reached."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

from llm_backend.backends.base import Chat, ChatDelta, ToolCall, Usage
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.controllers.generation.checked_answer import CheckedAnswer, ModelAnswer
from llm_backend.controllers.moderations.moderated_answers import FILTERED, ModeratedAnswer
from llm_backend.controllers.response_items.compaction_items import (
    Compaction,
    begin_compaction,
    end_compaction,
)
from llm_backend.controllers.responses.input.context_management import (
    CompactionCut,
    summary_chat,
    summary_of,
)
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import truncate
from llm_backend.controllers.responses.loop.reasoning_summary import ReasoningSummary, SummaryText
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    OpenTools,
    ServerCall,
    ToolEvent,
)
from llm_backend.json_types import JsonObject


@dataclass(frozen=True, kw_only=True)
class RoundEnded:
    """End of a round: later text of the model belongs to a new item."""


LoopEvent = ChatDelta | SummaryText | ToolEvent | RoundEnded


class ToolLoop:
    """Rounds of one response. `usage` sums all rounds, and `reason` is the last finish reason.
    At most `calls_limit` calls of server tools are run; afterwards the model is asked once more
    without those tools. With a `cut`, the model first summarizes the items that are dropped.
    A local model generates a structured answer up to `structured_tries` times, until one is valid.
    Leaving the `async with` block releases the engine's resources.
    """

    def __init__(
        self,
        model: ResponseModel,
        resolved: ResolvedRequest,
        *,
        calls_limit: int,
        structured_tries: int = 1,
        cut: CompactionCut | None = None,
        moderation: ModeratedAnswer | None = None,
        reasoning_summary: ReasoningSummary | None = None,
    ) -> None:
        self._model = model
        self._resolved = resolved
        self._tools: OpenTools = resolved.tools
        self._remaining_calls = calls_limit
        self._structured_tries = structured_tries if isinstance(model, LocalModel) else 1
        self._cut = cut
        self._moderation = moderation
        self._reasoning_summary = reasoning_summary
        self._chat = resolved.chat
        self._answer: ModelAnswer | None = None
        self._usage = Usage()  # of the finished rounds
        self._compaction_usage = Usage()  # apart, as `max_output_tokens` does not count it
        self.reason = "stop"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def truncated_items(self) -> int:
        """Number of the oldest items that truncation removed."""
        return self._resolved.truncated_items

    @property
    def usage(self) -> Usage:
        """Tokens and seconds so far."""
        usage = self._usage + self._compaction_usage
        if self._reasoning_summary is not None:
            usage += self._reasoning_summary.usage
        return usage if self._answer is None else usage + self._answer.usage

    async def admit(self) -> None:
        """Submits the first chat to the model, unless approved calls must run before it. With a
        `cut` always submits the chat that asks for the summary. Raises the model's errors."""
        self._chat = await self._first_chat(())
        if self._cut is not None:
            self._chat = summary_chat(self._chat, self._cut.summary_tokens)
            self._answer = await self._model.chat(self._chat)
        elif not self._tools.initial_calls():
            self._answer = await self._model.chat(self._chat)

    async def events(
        self, output: Callable[[], Sequence[JsonObject]]
    ) -> AsyncGenerator[LoopEvent, None]:
        """Yields all events of the loop as they occur.

        The consumer adds each event to the response's state, which builds the output items.
        `output` returns those items: before each further round the loop reads the results of tools
        from them (loop -> state -> loop).
        """
        if self._cut is not None:
            async with aclosing(self._compact(self._cut)) as events:
                async for event in events:
                    yield event
            self._chat = await self._first_chat(output())
        for event in self._tools.initial_events():
            yield event
        is_clients_turn, pending = False, self._tools.initial_calls()
        is_choice_met = any(map(self._meets_choice, pending[: self._remaining_calls]))
        while True:
            if not pending:
                calls = _ServerCalls(self._tools)
                async with aclosing(self._generate_with_summaries()) as deltas:
                    async for delta in deltas:
                        yield delta if isinstance(delta, SummaryText) else calls.collect(delta)
                pending = [call for call in calls.calls if self._may_be_called(call)]
                if self.reason in ("length", "content_filter") or not pending:
                    return
                is_clients_turn = calls.has_client_calls
                is_choice_met = True
                yield RoundEnded()
            async with aclosing(self._run_calls(pending)) as events:
                async for event in events:
                    yield event
                    is_clients_turn |= isinstance(event, CallEnded) and event.awaits_client
            if is_clients_turn or not await self._prepare_next_round(
                output(), is_choice_met=is_choice_met
            ):
                return
            pending = []

    async def _compact(self, cut: CompactionCut) -> AsyncGenerator[ToolEvent, None]:
        """Generates the summary and yields it as a `compaction` item in place of the dropped items,
        with an event without content for each piece of it."""
        assert self._answer is not None, "`admit` has submitted the chat"
        begun = begin_compaction()
        yield CallBegan(item=begun)
        pieces: list[str] = []
        try:
            async with aclosing(self._answer.chat_deltas(self._chat)) as deltas:
                async for delta in deltas:
                    pieces.append(delta.content)
                    yield CallProgress(kind="response.compaction.compacting")
        finally:
            await self._close()
        self._usage, self._compaction_usage = Usage(), self._usage
        compaction = Compaction(summary=summary_of(pieces), kept=cut.kept)
        yield CallEnded(item=end_compaction(begun, compaction))

    async def _first_chat(self, output: Sequence[JsonObject]) -> Chat:
        resolved = self._resolved
        is_unchanged = not (resolved.truncated_items or output)
        chat = resolved.chat if is_unchanged else await resolved.chat_after(output)
        return self._without_server_tools(chat) if self._remaining_calls < 1 else chat

    def _generate_with_summaries(self) -> AsyncGenerator[ChatDelta | SummaryText, None]:
        if self._reasoning_summary is None:
            return self._generate()
        return self._reasoning_summary.add_summaries(self._generate(), self._chat_beside)

    async def _chat_beside(self, chat: Chat) -> ModelAnswer:
        """Submits a chat while the answer is read, which may keep the model in use."""
        answer = self._answer.answer if isinstance(self._answer, CheckedAnswer) else self._answer
        if isinstance(self._model, LocalModel) and isinstance(answer, AdmittedGeneration):
            return await self._model.chat_beside(answer, chat)
        return await self._model.chat(chat)

    async def _generate(self) -> AsyncGenerator[ChatDelta, None]:
        if self._answer is None:
            self._answer = await self._model.chat(self._chat)
        structure = self._resolved.structure
        if (structure.schema is not None or structure.calls) and not self._chat.limits.stop:
            self._answer = CheckedAnswer(
                self._answer, structure, self._model.chat, attempts=self._structured_tries
            )
        deltas = self._answer.chat_deltas(self._chat)
        if self._moderation is not None:
            deltas = self._moderation.filter_deltas(deltas)
        try:
            async with aclosing(deltas) as deltas:
                async for delta in deltas:
                    self.reason = delta.finish_reason or self.reason
                    yield delta
        finally:
            await self._close()

    async def _run_calls(self, calls: Sequence[ServerCall]) -> AsyncGenerator[ToolEvent, None]:
        for call in calls[: self._remaining_calls]:
            self._remaining_calls -= 1
            async with aclosing(self._tools.run(call)) as events:
                async for event in events:
                    yield event

    def _may_be_called(self, call: ServerCall) -> bool:
        """True if the model is shown the function in this round, and is allowed to call it. Models
        of upstreams also call functions of earlier rounds and responses; such a call is ignored."""
        names = self._resolved.allowed_names
        is_shown = any(tool["function"]["name"] == call.name for tool in self._chat.tools)
        return is_shown and (names is None or call.name in names)

    def _meets_choice(self, call: ServerCall) -> bool:
        """True if the call is one of those that the tool choice allows."""
        names = self._resolved.chat.callable_names
        return names is None or call.name in names

    async def _prepare_next_round(
        self, output: Sequence[JsonObject], *, is_choice_met: bool
    ) -> bool:
        """Sets the chat of the next round; returns False if the token limit leaves none."""
        self._resolved = await truncate(self._model, self._resolved, output)
        chat = await self._resolved.chat_after(output)
        limits = self._resolved.chat.limits
        if limits.max_tokens is not None:
            remaining = limits.max_tokens - self._usage.completion_tokens
            if remaining < 1:
                self.reason = "length"
                return False
            limits = replace(limits, max_tokens=remaining)
        chat = replace(chat, limits=limits)
        if is_choice_met:  # a forced call has been made, so the choice is free
            chat = replace(chat, must_call=False, callable_names=self._resolved.allowed_names)
        self._chat = self._without_server_tools(chat) if self._remaining_calls < 1 else chat
        return True

    def _without_server_tools(self, chat: Chat) -> Chat:
        """Returns the chat with only the client's tools. A choice that only server tools could
        satisfy becomes free."""
        tools = [tool for tool in chat.tools if not self._tools.runs(tool["function"]["name"])]
        own = {tool["function"]["name"] for tool in tools}
        names, must_call = chat.callable_names, chat.must_call
        if names is not None and own.isdisjoint(names):
            names, must_call = self._resolved.allowed_names, False
        if names is not None and own.isdisjoint(names):
            tools, names = [], None
        must_call = must_call and bool(tools)
        return replace(chat, must_call=must_call, callable_names=names, tools=tools)

    async def _close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            async with answer:
                self._usage += answer.usage


class WithheldToolLoop:
    """Empty tool loop of a response whose input was flagged by moderation."""

    usage = Usage()
    reason = FILTERED
    truncated_items = 0

    async def events(
        self, output: Callable[[], Sequence[JsonObject]]
    ) -> AsyncGenerator[LoopEvent, None]:
        """Yields nothing."""
        nothing: Sequence[LoopEvent] = ()
        for event in nothing:
            yield event


class _ServerCalls:
    """Tool calls of one round: collects those of server tools and passes on the client's."""

    def __init__(self, tools: OpenTools) -> None:
        self._tools = tools
        self._collected: dict[int, tuple[str, list[str]]] = {}  # by index: name, argument pieces
        self.has_client_calls = False

    @property
    def calls(self) -> list[ServerCall]:
        """Calls of server tools."""
        return [
            ServerCall(name=name, arguments="".join(arguments) or "{}")
            for name, arguments in self._collected.values()
        ]

    def collect(self, delta: ChatDelta) -> ChatDelta:
        """Collects calls of server tools and returns the delta without them."""
        if not delta.tool_calls:
            return delta
        return replace(delta, tool_calls=[call for call in delta.tool_calls if self._passes(call)])

    def _passes(self, call: ToolCall) -> bool:
        if call.name is not None and self._tools.runs(call.name):
            self._collected[call.index] = (call.name, [])
        if call.index in self._collected:
            self._collected[call.index][1].append(call.arguments)
            return False
        self.has_client_calls = True
        return True
