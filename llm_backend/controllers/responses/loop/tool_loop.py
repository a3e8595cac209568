"""The rounds of one response: the model is asked, the calls that it made of the server's tools are
run, and it is asked again, until it calls none of them or may call no more.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Self

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

__all__ = ["Happening", "RoundEnded", "ToolLoop", "WithheldToolLoop"]

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RoundEnded:
    """The model has said all of this round; whatever it says next is another item."""


Happening = ChatDelta | SummaryText | Step | RoundEnded


class ToolLoop:
    """What happens in one response, as `said` in order. `usage` sums all rounds, and `reason` says
    why the last one ended. At most `calls_limit` calls of the server's tools are run; a model that
    has made so many is asked a last time without them. Where there is a `cut`, the model first sums
    up what is not kept. Leaving its `async with` frees what it holds in the engine.
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
        self._usage = Usage()  # of the rounds before
        self._summing_up = Usage()  # which no limit of the answer's counts
        self.reason = "stop"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def left_out(self) -> int:
        """How many of the oldest items the model has not been shown."""
        return self._question.left_out

    @property
    def usage(self) -> Usage:
        """The tokens and seconds so far."""
        usage = self._usage + self._summing_up
        if self._thoughts is not None:
            usage += self._thoughts.usage
        return usage if self._answer is None else usage + self._answer.usage

    async def admit(self) -> None:
        """Have the model take the first question, unless calls are to be run before. Raises what
        it refuses."""
        self._chat = await self._first_chat(())
        if self._cut is not None:
            self._chat = summary_chat(self._chat, self._cut.summary_tokens)
            self._answer = await self._model.chat(self._chat)
        elif not self._tools.due():
            self._answer = await self._model.chat(self._chat)

    async def said(self, output: Callable[[], Sequence[Json]]) -> AsyncGenerator[Happening, None]:
        """All that happens, to be taken as it comes; `output` gives the items that it has made so
        far, from which the model learns what the tools found."""
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
        """The summary, as the item that stands for what is not kept."""
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

    async def _first_chat(self, output: Sequence[Json]) -> Chat:
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

    async def _goes_on(self, output: Sequence[Json]) -> bool:
        """Whether there is room for another round; its chat is made."""
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
        """A call that was demanded has been made; tools that may not be called again are hidden."""
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
    """Stands for the rounds of a response whose input was flagged: there are none."""

    usage = Usage()
    reason = FILTERED
    left_out = 0

    async def said(self, output: Callable[[], Sequence[Json]]) -> AsyncGenerator[Happening, None]:
        """Nothing."""
        nothing: Sequence[Happening] = ()
        for happening in nothing:
            yield happening


class _Calls:
    """The calls of one round: those of the server's tools are kept back, the others passed on."""

    def __init__(self, tools: OpenTools) -> None:
        self._tools = tools
        self._kept: dict[int, tuple[str, list[str]]] = {}  # by the call's index: name, arguments
        self.has_clients = False

    @property
    def made(self) -> list[ServerCall]:
        """The calls of the server's tools."""
        return [
            ServerCall(name=name, arguments="".join(arguments) or "{}")
            for name, arguments in self._kept.values()
        ]

    def take(self, delta: ChatDelta) -> ChatDelta:
        """The delta without what the client does not see."""
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
