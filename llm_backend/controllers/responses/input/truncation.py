"""Truncation (`truncation: auto`): drops the oldest items until the rest fits the context."""

from collections.abc import Sequence
from typing import Protocol

from llm_backend.backends.base import Chat
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.errors import ContextLengthExceeded
from llm_backend.json_types import JsonMapping

ANSWER_SHARE = 0.25  # of the context, kept free for an answer without `max_output_tokens`
MAX_ANSWER_SHARE = 0.5  # of the context, kept free for an answer at most

Item = JsonMapping


class TokenCounter(Protocol):
    """Interface of a model that counts prompt tokens."""

    async def count_prompt_tokens(self, request: Chat) -> int: ...
    async def load_context_tokens(self) -> int: ...


async def truncate(
    model: TokenCounter, resolved: ResolvedRequest, output: Sequence[Item] = ()
) -> ResolvedRequest:
    """Returns the request without as few of the oldest items as needed to fit once `output` is
    added; unchanged if it fits or `truncation` is not `auto`.

    The first cut tried is before a message of the user; if none fits, anywhere but between a call
    and its output. A request that cannot fit is unchanged: the model refuses it.
    """
    if resolved.body.get("truncation") != "auto":
        return resolved
    if await _fits(model, await resolved.chat_after(output), spare_tokens=1):
        return resolved
    items = [*resolved.items, *output]
    for starts in (_turns(items), between_calls(items)):
        if found := await _find_first_fitting(model, resolved, output, starts):
            return found
    return resolved


async def _find_first_fitting(
    model: TokenCounter, resolved: ResolvedRequest, output: Sequence[Item], starts: Sequence[int]
) -> ResolvedRequest | None:
    """Finds the first start whose items fit with room for an answer, by binary search: all later
    starts fit, too."""
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        chat = await resolved.without_oldest(starts[middle]).chat_after(output)
        if await _fits(model, chat, spare_tokens=await _answer_tokens(model, chat)):
            high = middle
        else:
            low = middle + 1
    return resolved.without_oldest(starts[low]) if low < len(starts) else None


async def _fits(model: TokenCounter, chat: Chat, *, spare_tokens: int) -> bool:
    try:
        needed_tokens = await model.count_prompt_tokens(chat) + spare_tokens
    # The chat is too long to be tokenized.
    except ContextLengthExceeded:
        return False
    return needed_tokens <= await model.load_context_tokens()


async def _answer_tokens(model: TokenCounter, chat: Chat) -> int:
    requested, context_tokens = chat.limits.max_tokens, await model.load_context_tokens()
    if requested is None:
        return max(1, int(context_tokens * ANSWER_SHARE))
    return max(1, min(requested, int(context_tokens * MAX_ANSWER_SHARE)))


def _turns(items: Sequence[Item]) -> list[int]:
    """Returns the indices of messages not by the assistant, without the first item."""
    return [
        index
        for index, item in enumerate(items)
        if index and item["type"] == "message" and item["role"] != "assistant"
    ]


def between_calls(items: Sequence[Item]) -> list[int]:
    """Returns the indices at which no later output has its call before the index."""
    call_indices: dict[str, int] = {}
    # Index of the earliest call whose output is at this place or later.
    first = [len(items)] * len(items)
    for index, item in enumerate(items):
        call_id = item.get("call_id")
        if call_id and item["type"].endswith("_output"):
            first[index] = call_indices.get(call_id, index)
        elif call_id:
            call_indices[call_id] = index
    for index in range(len(items) - 2, -1, -1):
        first[index] = min(first[index], first[index + 1])
    return [index for index in range(1, len(items)) if first[index] >= index]
