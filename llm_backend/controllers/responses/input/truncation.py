"""Truncation (`truncation: auto`): drops the oldest items until the rest fits the context."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llm_backend.backends.base import Chat
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.errors import ContextLengthExceeded

__all__ = ["TokenCounter", "between_calls", "fitting"]

ANSWERS_SHARE = 0.25  # of the context, kept free for an answer without `max_output_tokens`
MOST = 0.5  # of the context, kept free for an answer at most

Item = Mapping[str, Any]


class TokenCounter(Protocol):
    """Interface of a model that counts prompt tokens."""

    async def prompt_tokens(self, request: Chat) -> int: ...
    @property
    def context_tokens(self) -> int: ...


async def fitting(
    model: TokenCounter, question: ResolvedRequest, output: Sequence[Item] = ()
) -> ResolvedRequest:
    """Returns the request without as few of the oldest items as needed to fit once `output` is
    added; unchanged if it fits or `truncation` is not `auto`.

    The first cut tried is before a message of the user; if none fits, anywhere but between a call
    and its output. A request that cannot fit is unchanged: the model refuses it.
    """
    if question.body.get("truncation") != "auto":
        return question
    if await _fits(model, await question.chat_after(output), spare_tokens=1):
        return question
    items = [*question.items, *output]
    for starts in (_turns(items), between_calls(items)):
        if found := await _first_that_fits(model, question, output, starts):
            return found
    return question


async def _first_that_fits(
    model: TokenCounter, question: ResolvedRequest, output: Sequence[Item], starts: Sequence[int]
) -> ResolvedRequest | None:
    """Finds the first start whose items fit with room for an answer, by binary search: all later
    starts fit, too."""
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        chat = await question.leaving_out(starts[middle]).chat_after(output)
        if await _fits(model, chat, spare_tokens=_for_the_answer(model, chat)):
            high = middle
        else:
            low = middle + 1
    return question.leaving_out(starts[low]) if low < len(starts) else None


async def _fits(model: TokenCounter, chat: Chat, *, spare_tokens: int) -> bool:
    try:
        return await model.prompt_tokens(chat) + spare_tokens <= model.context_tokens
    # The chat is too long to be tokenized.
    except ContextLengthExceeded:
        return False


def _for_the_answer(model: TokenCounter, chat: Chat) -> int:
    wanted, context_tokens = chat.limits.max_tokens, model.context_tokens
    if wanted is None:
        return max(1, int(context_tokens * ANSWERS_SHARE))
    return max(1, min(wanted, int(context_tokens * MOST)))


def _turns(items: Sequence[Item]) -> list[int]:
    """Returns the indices of messages not by the assistant, without the first item."""
    return [
        place
        for place, item in enumerate(items)
        if place and item["type"] == "message" and item["role"] != "assistant"
    ]


def between_calls(items: Sequence[Item]) -> list[int]:
    """Returns the indices at which no later output has its call before the index."""
    made: dict[str, int] = {}
    # Index of the earliest call whose output is at this place or later.
    first = [len(items)] * len(items)
    for place, item in enumerate(items):
        call_id = item.get("call_id")
        if call_id and item["type"].endswith("_output"):
            first[place] = made.get(call_id, place)
        elif call_id:
            made[call_id] = place
    for place in range(len(items) - 2, -1, -1):
        first[place] = min(first[place], first[place + 1])
    return [place for place in range(1, len(items)) if first[place] >= place]
