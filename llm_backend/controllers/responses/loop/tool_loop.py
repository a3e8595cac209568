"""Tool loop of a response: asks the model, runs the calls that it made of server tools, and asks
it again, until it makes no such call or the limit of calls is reached.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

from llm_backend.backends.base import Chat, ChatDelta, ToolCall, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.controllers.generation.answer_schema import CheckedAnswer
from llm_backend.controllers.moderations.moderated_answers import FILTERED, ModeratedAnswer
from llm_backend.controllers.responses.input.compaction_items import Compaction, compaction_item
from llm_backend.controllers.responses.input.context_management import (
    CompactionCut,
    summary_chat,
    summary_of,
)
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import fitting
from llm_backend.controllers.responses.loop.reasoning_summary import ReasoningSummary, SummaryText
from llm_backend.controllers.responses.loop.response_model import ModelAnswer, ResponseModel
from llm_backend.controllers.responses.loop.server_tools import (
    CallBegan,
    CallEnded,
    OpenTools,
    ServerCall,
    Step,
)
from llm_backend.json_types import JsonObject

__all__ = ["Happening", "RoundEnded", "ToolLoop", "WithheldToolLoop"]


@dataclass(frozen=True, kw_only=True)
class RoundEnded:
    """End of a round: later text of the model belongs to a new item."""


Happening = ChatDelta | SummaryText | Step | RoundEnded


class ToolLoop:
    """Rounds of one response. `usage` sums all rounds, and `reason` is the last finish reason.
    At most `calls_limit` calls of server tools are run; afterwards the model is asked once more
    without those tools. With a `cut`, the model first summarizes the items that are dropped.
    Leaving its `async with` releases the engine's resources.
    """

    def __init__(
        self,
        model: ResponseModel,
        question: ResolvedRequest,
        *,
        calls_limit: int,
        tries: int = 1,
        cut: CompactionCut | None = None,
        moderation: ModeratedAnswer | None = None,
        thoughts: ReasoningSummary | None = None,
    ) -> None:
        self._model = model
        self._question = question
        self._tools: OpenTools = question.tools
        self._calls_left = calls_limit
        self._tries = tries if isinstance(model, LocalModel) else 1
        self._cut = cut
        self._moderation = moderation
        self._thoughts = thoughts
        self._chat = question.chat
        self._answer: ModelAnswer | None = None
        self._usage = Usage()  # of the finished rounds
        self._summing_up = Usage()  # of the compaction: `max_output_tokens` does not count it
        self.reason = "stop"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def left_out(self) -> int:
        """Number of the oldest items that truncation removed."""
        return self._question.left_out

    @property
    def usage(self) -> Usage:
        """Tokens and seconds so far."""
        usage = self._usage + self._summing_up
        if self._thoughts is not None:
            usage += self._thoughts.usage
        return usage if self._answer is None else usage + self._answer.usage

    async def admit(self) -> None:
        """Has the model admit the first chat, unless approved calls are to be run before. Raises
        the model's errors."""
        self._chat = await self._first_chat(())
        if self._cut is not None:
            self._chat = summary_chat(self._chat, self._cut.summary_tokens)
            self._answer = await self._model.chat(self._chat)
        elif not self._tools.due():
            self._answer = await self._model.chat(self._chat)

    async def said(
        self, output: Callable[[], Sequence[JsonObject]]
    ) -> AsyncGenerator[Happening, None]:
        """Yields all events of the loop as they occur. `output` returns the items made so far,
        from which the model gets the results of tools."""
        if self._cut is not None:
            async with aclosing(self._compacted(self._cut)) as steps:
                async for step in steps:
                    yield step
            self._chat = await self._first_chat(output())
        for step in self._tools.told_first():
            yield step
        is_clients_turn, due = False, self._tools.due()
        while True:
            if not due:
                calls = _Calls(self._tools)
                async with aclosing(self._thought_and_said()) as deltas:
                    async for delta in deltas:
                        yield delta if isinstance(delta, SummaryText) else calls.take(delta)
                if self.reason in ("length", "content_filter") or not calls.made:
                    return
                due, is_clients_turn = calls.made, calls.has_clients
                yield RoundEnded()
            async with aclosing(self._run(due)) as steps:
                async for step in steps:
                    yield step
                    is_clients_turn |= isinstance(step, CallEnded) and step.awaits_client
            if is_clients_turn or not await self._goes_on(output()):
                return
            due = []

    async def _compacted(self, cut: CompactionCut) -> AsyncGenerator[Step, None]:
        """Generates the summary and yields it as a `compaction` item in place of the dropped
        items."""
        assert self._answer is not None, "it has been admitted"
        pieces: list[str] = []
        try:
            async with aclosing(self._answer.chat(self._chat)) as deltas:
                async for delta in deltas:
                    pieces.append(delta.content)
        finally:
            await self._close()
        self._usage, self._summing_up = Usage(), self._usage
        item = compaction_item(Compaction(summary=summary_of(pieces), kept=cut.kept))
        yield CallBegan(item=item)
        yield CallEnded(item=item)

    async def _first_chat(self, output: Sequence[JsonObject]) -> Chat:
        question = self._question
        is_asked = not (question.left_out or output)
        chat = question.chat if is_asked else await question.chat_after(output)
        return self._with_free_choice(chat) if self._calls_left < 1 else chat

    def _thought_and_said(self) -> AsyncGenerator[ChatDelta | SummaryText, None]:
        return self._asked() if self._thoughts is None else self._thoughts.told(self._asked())

    async def _asked(self) -> AsyncGenerator[ChatDelta, None]:
        if self._answer is None:
            self._answer = await self._model.chat(self._chat)
        structure = self._question.structure
        if (structure.schema is not None or structure.calls) and not self._chat.limits.stop:
            self._answer = CheckedAnswer(
                self._answer, structure, self._model.chat, tries=self._tries
            )
        deltas = self._answer.chat(self._chat)
        if self._moderation is not None:
            deltas = self._moderation.watched(deltas)
        try:
            async with aclosing(deltas) as said:
                async for delta in said:
                    self.reason = delta.finish_reason or self.reason
                    yield delta
        finally:
            await self._close()

    async def _run(self, calls: Sequence[ServerCall]) -> AsyncGenerator[Step, None]:
        for call in calls[: self._calls_left]:
            self._calls_left -= 1
            async with aclosing(self._tools.run(call)) as steps:
                async for step in steps:
                    yield step

    async def _goes_on(self, output: Sequence[JsonObject]) -> bool:
        """True if another round fits the token limit; sets the chat of that round."""
        self._question = await fitting(self._model, self._question, output)
        chat = await self._question.chat_after(output)
        limits = self._question.chat.limits
        if limits.max_tokens is not None:
            left = limits.max_tokens - self._usage.completion_tokens
            if left < 1:
                self.reason = "length"
                return False
            limits = replace(limits, max_tokens=left)
        self._chat = self._with_free_choice(replace(chat, limits=limits))
        return True

    def _with_free_choice(self, chat: Chat) -> Chat:
        """Returns the chat of a later round: a forced call has been made, so the choice is free,
        and server tools are removed once the limit of calls is reached."""
        names, tools = self._question.allowed_names, chat.tools
        if self._calls_left < 1:
            tools = [tool for tool in tools if not self._tools.runs(tool["function"]["name"])]
        if names is not None and not any(tool["function"]["name"] in names for tool in tools):
            tools, names = (), None
        return replace(chat, must_call=False, callable_names=names, tools=tools)

    async def _close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            async with answer:
                self._usage += answer.usage


class WithheldToolLoop:
    """Empty tool loop of a response whose input moderation has flagged."""

    usage = Usage()
    reason = FILTERED
    left_out = 0

    async def said(
        self, output: Callable[[], Sequence[JsonObject]]
    ) -> AsyncGenerator[Happening, None]:
        """Yields nothing."""
        nothing: Sequence[Happening] = ()
        for happening in nothing:
            yield happening


class _Calls:
    """Tool calls of one round: collects those of server tools and passes on the client's."""

    def __init__(self, tools: OpenTools) -> None:
        self._tools = tools
        # by index of the call: name, pieces of the arguments
        self._kept: dict[int, tuple[str, list[str]]] = {}
        self.has_clients = False

    @property
    def made(self) -> list[ServerCall]:
        """Calls of server tools."""
        return [
            ServerCall(name=name, arguments="".join(arguments) or "{}")
            for name, arguments in self._kept.values()
        ]

    def take(self, delta: ChatDelta) -> ChatDelta:
        """Collects calls of server tools and returns the delta without them."""
        if not delta.tool_calls:
            return delta
        return replace(
            delta, tool_calls=[call for call in delta.tool_calls if self._is_shown(call)]
        )

    def _is_shown(self, call: ToolCall) -> bool:
        if call.name is not None and self._tools.runs(call.name):
            self._kept[call.index] = (call.name, [])
        if call.index in self._kept:
            self._kept[call.index][1].append(call.arguments)
            return False
        self.has_clients = True
        return True
