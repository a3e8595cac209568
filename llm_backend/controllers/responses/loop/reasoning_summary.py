"""Reasoning summaries (`reasoning.summary`): the model summarizes its own finished reasoning.

`auto` makes no summary: the reasoning is sent in full, and a summary takes time and tokens.
"""

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from llm_backend.backends.base import Chat, ChatDelta, GenerationLimits, Usage
from llm_backend.controllers.generation.checked_answer import ModelAnswer
from llm_backend.controllers.responses.loop.response_model import ResponseModel
from llm_backend.errors import ContextLengthExceeded, InvalidRequest, UnsupportedField

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

log = logging.getLogger(__name__)

Generate = Callable[[Chat], Awaitable[ModelAnswer]]


@dataclass(frozen=True, kw_only=True)
class _SummaryLength:
    description: str
    max_tokens: int


LENGTHS = {
    "concise": _SummaryLength(description="one or two sentences", max_tokens=128),
    "detailed": _SummaryLength(
        description="a sentence or two for each of its steps", max_tokens=512
    ),
}
SUMMARY_PROMPT = (
    "This is how you have reasoned about an answer:\n<reasoning>\n{}\n</reasoning>\n"
    "Summarize the reasoning in {}, in the first person. Write nothing else."
)


@dataclass(frozen=True, kw_only=True)
class SummaryText:
    """Summary of the reasoning since the last summary."""

    text: str


class ReasoningSummary:
    """Summarizes the model's reasoning in one response; `usage` counts the summaries' tokens."""

    def __init__(self, length: _SummaryLength) -> None:
        self._length = length
        self.usage = Usage()

    @classmethod
    async def from_body(cls, model: ResponseModel, body: "api.CreateResponse") -> Self | None:
        """Returns the summarizer that `reasoning.summary` asks for; None if it asks for none.

        Raises `UnsupportedField` for a bridged model, and for a model that always reasons: it would
        reason about the summary, too. Counting the tokens of a prompt shows both."""
        reasoning = body.get("reasoning") or {}
        name = reasoning.get("summary") or reasoning.get("generate_summary") or "auto"
        if name not in LENGTHS:
            return None
        summarizer = cls(LENGTHS[name])
        try:
            await model.count_prompt_tokens(summarizer._chat(""))
        except InvalidRequest as error:
            raise UnsupportedField(
                f"The model `{body['model']}` cannot be asked to summarize its reasoning: "
                "`summary` must be `auto` or absent.",
                param="reasoning.summary",
            ) from error
        return summarizer

    async def add_summaries(
        self, deltas: AsyncGenerator[ChatDelta, None], generate: Generate
    ) -> AsyncGenerator[ChatDelta | SummaryText, None]:
        """Yields the deltas, with a summary after each completed block of reasoning. `generate`
        submits a chat beside the deltas."""
        reasoning: list[str] = []
        async with aclosing(deltas):
            async for delta in deltas:
                reasoning.append(delta.reasoning)
                is_after_reasoning = (
                    delta.content or delta.refusal or delta.tool_calls or delta.finish_reason
                )
                if not is_after_reasoning or not any(reasoning):
                    yield delta
                    continue
                if delta.reasoning:
                    yield ChatDelta(choice=delta.choice, reasoning=delta.reasoning)
                if text := await self._summarize("".join(reasoning), generate):
                    yield SummaryText(text=text)
                reasoning.clear()
                yield replace(delta, reasoning="")

    async def _summarize(self, reasoning: str, generate: Generate) -> str:
        chat = self._chat(reasoning)
        pieces = []
        try:
            answer = await generate(chat)
        except ContextLengthExceeded:  # the reasoning alone fills the context
            log.warning("reasoning_not_summarized", extra={"characters": len(reasoning)})
            return ""
        async with answer, aclosing(answer.chat_deltas(chat)) as deltas:
            async for delta in deltas:
                pieces.append(delta.content)
        self.usage += answer.usage
        return "".join(pieces).strip()

    def _chat(self, reasoning: str) -> Chat:
        return Chat(
            messages=[
                {
                    "role": "user",
                    "content": SUMMARY_PROMPT.format(reasoning, self._length.description),
                }
            ],
            has_personality=False,
            reasoning_effort="none",
            limits=GenerationLimits(max_tokens=self._length.max_tokens),
        )
