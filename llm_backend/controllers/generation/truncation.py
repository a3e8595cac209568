"""Truncation (`truncation: auto`): the oldest part of an input is left out until the rest fits."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from llm_backend.backends.base import Chat
from llm_backend.errors import ContextLengthExceeded
from llm_backend.json_types import JsonMapping

ANSWER_SHARE = 0.25  # share of the context kept free for an answer without a limit of tokens
MAX_ANSWER_SHARE = 0.5  # largest share of the context kept free for an answer


class TokenCounter(Protocol):
    """Interface of a model that counts prompt tokens."""

    async def count_prompt_tokens(self, request: Chat) -> int: ...
    async def load_context_tokens(self) -> int: ...


async def truncate_chat(model: TokenCounter, chat: Chat) -> tuple[Chat, int]:
    """Drops the fewest of a chat's oldest messages so that it fits. Returns the chat and the number
    of dropped messages.

    Instructions at the beginning stay. Cuts before user messages are tried first; if none of them
    is enough, any cut that does not separate a call from its output. A chat that cannot fit is
    unchanged: the model refuses it.
    """
    if await fits(model, chat):
        return chat, 0
    kept = _count_instructions(chat.messages)

    async def chat_from(start: int) -> Chat:
        return replace(chat, messages=[*chat.messages[:kept], *chat.messages[start:]])

    later = [*enumerate(chat.messages)][kept + 1 :]
    turns = [index for index, message in later if message["role"] == "user"]
    between_calls = [index for index, message in later if message["role"] not in _OUTPUTS]
    start = await find_first_fitting(model, chat_from, turns, between_calls)
    return (chat, 0) if start is None else (await chat_from(start), start - kept)


async def fits(model: TokenCounter, chat: Chat, *, spare_tokens: int = 1) -> bool:
    """True if the context of the model has `spare_tokens` after the prompt of a chat."""
    try:
        needed_tokens = await model.count_prompt_tokens(chat) + spare_tokens
    except ContextLengthExceeded:  # the chat is too long to be tokenized
        return False
    return needed_tokens <= await model.load_context_tokens()


async def find_first_fitting(
    model: TokenCounter, chat_from: Callable[[int], Awaitable[Chat]], *cut_lists: Sequence[int]
) -> int | None:
    """Returns the first start at which the chat fits with room for an answer, by binary search, as
    all later starts fit too. The lists of `cut_lists` are tried in their order; None if none has
    such a start."""
    for starts in cut_lists:
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            chat = await chat_from(starts[middle])
            if await fits(model, chat, spare_tokens=await _answer_tokens(model, chat)):
                high = middle
            else:
                low = middle + 1
        if low < len(starts):
            return starts[low]
    return None


async def _answer_tokens(model: TokenCounter, chat: Chat) -> int:
    requested, context_tokens = chat.limits.max_tokens, await model.load_context_tokens()
    if requested is None:
        return max(1, int(context_tokens * ANSWER_SHARE))
    return max(1, min(requested, int(context_tokens * MAX_ANSWER_SHARE)))


_INSTRUCTIONS = ("system", "developer")
_OUTPUTS = ("tool", "function")


def _count_instructions(messages: Sequence[JsonMapping]) -> int:
    """Counts the messages with instructions before the first other message."""
    roles = [message["role"] in _INSTRUCTIONS for message in messages]
    return roles.index(False) if False in roles else len(roles)
