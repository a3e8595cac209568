"""One choice of a chat: converts the engine's deltas to reasoning, content and numbered calls."""

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.backends.local.markup import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    MarkupParser,
    Part,
    Reasoning,
)
from llm_backend.engine.messages import Delta, FinishReason, TokenLogprob


class ChatChoice:
    """Converts the deltas of choice `index`; with `parser` None their text is content. With
    `is_parallel` False the choice ends after its first call. Of the stop strings that match, only
    `stops`, the client's, are reported.
    """

    def __init__(
        self,
        index: int,
        parser: MarkupParser | None,
        *,
        is_parallel: bool,
        stops: Collection[str] = (),
    ) -> None:
        self._index = index
        self._parser = parser
        self._is_parallel = is_parallel
        self._stops = stops
        self._calls = 0
        self._tokens = 0
        self._reasoning_tokens = 0.0
        self.is_finished = False

    @property
    def reasoning_tokens(self) -> int:
        """Number of reasoning tokens so far, including marks. Exact if each delta is one token; if
        reasoning ended within a delta of several tokens, they are split in proportion to its text.
        """
        return round(self._reasoning_tokens)

    def convert(self, delta: Delta) -> Sequence[ChatDelta]:
        """Converts a delta; returns nothing once the choice is finished."""
        if self.is_finished:
            return ()
        if self._parser is not None or delta.finish_reason is not None:
            return list(self._convert_parts(delta))
        if delta.text or delta.logprobs:  # nearly all deltas of most chats
            return (ChatDelta(choice=self._index, content=delta.text, logprobs=delta.logprobs),)
        return ()

    def _convert_parts(self, delta: Delta) -> Iterator[ChatDelta]:
        parts = self._parse(delta)
        is_cut_short = not self._is_parallel and CallEnd() in parts
        if is_cut_short:
            parts = parts[: parts.index(CallEnd())]
        parts = [part for part in parts if part != CallEnd()]
        if parts or delta.logprobs:
            yield self._build_delta(parts, delta.logprobs)
        if delta.finish_reason or is_cut_short:
            self.is_finished = True
            is_length = delta.finish_reason is FinishReason.LENGTH and not is_cut_short
            reason = str(delta.finish_reason) if is_length or not self._calls else "tool_calls"
            stop = delta.stop_sequence if delta.stop_sequence in self._stops else None
            yield ChatDelta(
                choice=self._index,
                finish_reason=reason,
                stop_sequence=stop if reason == "stop" else None,
            )

    def _parse(self, delta: Delta) -> Sequence[Part]:
        if self._parser is None:
            return [Content(delta.text)] if delta.text else []
        was_reasoning = self._parser.is_reasoning
        parts = self._parser.feed(delta.text)
        self._count_tokens(delta, parts, was_reasoning, self._parser.is_reasoning)
        if delta.finish_reason:
            parts += self._parser.finish(
                is_cut=delta.finish_reason is FinishReason.LENGTH,
                is_stopped=delta.stop_sequence is not None,
            )
        return parts

    def _count_tokens(self, delta: Delta, parts: Sequence[Part], before: bool, after: bool) -> None:
        tokens = delta.completion_tokens - self._tokens
        self._tokens = delta.completion_tokens
        thought = sum(len(part.text) for part in parts if isinstance(part, Reasoning))
        if (before and after) or (tokens == 1 and (before or after)):
            self._reasoning_tokens += tokens
        elif before or after or thought:
            others = sum(
                len(part.text) for part in parts if isinstance(part, Content | CallArguments)
            )
            self._reasoning_tokens += tokens * (thought / (thought + others) if others else 1)

    def _build_delta(self, parts: Sequence[Part], logprobs: Sequence[TokenLogprob]) -> ChatDelta:
        calls: list[ToolCall] = []
        for part in parts:
            if isinstance(part, CallBegin):
                calls.append(
                    ToolCall(index=self._calls, id=f"call_{uuid.uuid4().hex[:24]}", name=part.name)
                )
                self._calls += 1
            elif isinstance(part, CallArguments):
                index = self._calls - 1
                if calls and calls[-1].index == index:
                    calls[-1] = replace(calls[-1], arguments=calls[-1].arguments + part.text)
                else:
                    calls.append(ToolCall(index=index, arguments=part.text))
        return ChatDelta(
            choice=self._index,
            reasoning="".join(part.text for part in parts if isinstance(part, Reasoning)),
            content="".join(part.text for part in parts if isinstance(part, Content)),
            tool_calls=calls,
            logprobs=logprobs,
        )
