"""Reasoning summaries (`reasoning.summary`): the model summarizes its own finished reasoning.

`auto` makes no summary: the reasoning is sent in full, and a summary takes time and tokens.
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Self

from llm_backend.backends.base import Chat, ChatDelta, GenerationLimits, Usage
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedField

__all__ = ["ReasoningSummary", "SummaryText"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Length:
    told: str
    max_tokens: int


LENGTHS = {
    "concise": _Length(told="one or two sentences", max_tokens=128),
    "detailed": _Length(told="a sentence or two for each of its steps", max_tokens=512),
}
ORDER = (
    "Somebody has thought about how to answer, and this is what was thought:\n<thoughts>\n{}\n"
    "</thoughts>\nSay in {} what was thought, as who thought it would. Write nothing else."
)


@dataclass(frozen=True, kw_only=True)
class SummaryText:
    """Summary of the reasoning since the last summary."""

    text: str


class ReasoningSummary:
    """Summarizes the model's reasoning in one response; `usage` counts the summaries' tokens."""

    def __init__(self, model: ResponseModel, length: _Length) -> None:
        self._model = model
        self._length = length
        self.usage = Usage()

    @classmethod
    async def wanted(cls, model: ResponseModel, body: Mapping[str, Any]) -> Self | None:
        """Returns the summarizer that `reasoning.summary` asks for; None if it asks for none.
        Raises `UnsupportedField` for a model that always reasons: it would reason about the
        summary first."""
        reasoning = body.get("reasoning") or {}
        name = reasoning.get("summary") or reasoning.get("generate_summary") or "auto"
        if name not in LENGTHS:
            return None
        thoughts = cls(model, LENGTHS[name])
        try:
            await model.prompt_tokens(thoughts._chat(""))
        except InvalidRequest as error:
            raise UnsupportedField(
                f"The model `{body['model']}` cannot be asked to sum up what it thought: "
                "`summary` is `auto` or left out.",
                param="reasoning.summary",
            ) from error
        return thoughts

    async def told(
        self, deltas: AsyncGenerator[ChatDelta, None]
    ) -> AsyncGenerator[ChatDelta | SummaryText, None]:
        """Yields the deltas, with a summary after each completed block of reasoning."""
        thought: list[str] = []
        async with aclosing(deltas):
            async for delta in deltas:
                thought.append(delta.reasoning)
                goes_on = delta.content or delta.refusal or delta.tool_calls or delta.finish_reason
                if not goes_on or not any(thought):
                    yield delta
                    continue
                if delta.reasoning:
                    yield ChatDelta(choice=delta.choice, reasoning=delta.reasoning)
                if text := await self._summary("".join(thought)):
                    yield SummaryText(text=text)
                thought.clear()
                yield replace(delta, reasoning="")

    async def _summary(self, thought: str) -> str:
        chat = self._chat(thought)
        pieces = []
        try:
            answer = await self._model.chat(chat)
        # The reasoning alone fills the context: it is sent without a summary.
        except ContextLengthExceeded:
            log.warning("reasoning_not_summed_up", extra={"characters": len(thought)})
            return ""
        async with answer, aclosing(answer.chat(chat)) as deltas:
            async for delta in deltas:
                pieces.append(delta.content)
        self.usage += answer.usage
        return "".join(pieces).strip()

    def _chat(self, thought: str) -> Chat:
        return Chat(
            messages=[{"role": "user", "content": ORDER.format(thought, self._length.told)}],
            has_personality=False,
            reasoning_effort="none",
            limits=GenerationLimits(max_tokens=self._length.max_tokens),
        )
