"""Context management (`context_management`): compacts a long conversation before it is answered,
by a summary that the model writes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from msgspec import structs

from llm_backend import errors
from llm_backend.backends.base import Chat, GenerationLimits
from llm_backend.controllers.generation.truncation import TokenCounter
from llm_backend.controllers.response_items.compaction_items import reading_order
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.responses.input.truncation import between_calls

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

SUMMARY_TOKENS = 1024  # limit of a summary: a page and a half
SUMMARY_SHARE = 0.25  # another limit: of the threshold, so that it is not exceeded again soon
FULL_SHARE = 0.75  # share of the context beyond which a conversation is compacted in any case
KEPT_SHARE = 0.5  # share of the threshold up to which the current turn is kept whole
COMPACTION_PROMPT = (
    "Summarise the conversation above for a reader that continues it and has not read it: what "
    "was asked for, found out, decided and done, with names, numbers and open questions. Write "
    "nothing else."
)


@dataclass(frozen=True, kw_only=True)
class CompactionCut:
    """Cut of a conversation: the last `kept` items stay, and a summary of at most `summary_tokens`
    tokens replaces the others."""

    kept: int
    summary_tokens: int


async def plan_compaction(model: TokenCounter, resolved: ResolvedRequest) -> CompactionCut | None:
    """Returns the cut that compacts the conversation; None if it is below the threshold or has
    nothing to summarize.

    The current turn is kept whole, from the user's messages on. If it is too long, only its last
    calls and their outputs are kept.
    """
    entries = resolved.body.get("context_management")
    if not entries:
        return None
    threshold = _threshold(entries, await _context_tokens(model))
    if await _tokens(model, await resolved.chat_after(())) < threshold:
        return None
    kept = await _count_kept_items(model, resolved, threshold * KEPT_SHARE)
    summary_tokens = max(1, min(SUMMARY_TOKENS, int(threshold * SUMMARY_SHARE)))
    return None if kept is None else CompactionCut(kept=kept, summary_tokens=summary_tokens)


def summary_chat(chat: Chat, max_tokens: int = SUMMARY_TOKENS) -> Chat:
    """Returns the chat that asks for a summary of this one; tools and formats are removed."""
    return replace(
        chat,
        messages=[*chat.messages, {"role": "user", "content": COMPACTION_PROMPT}],
        tools=(),
        must_call=False,
        callable_names=None,
        grammar=None,
        prediction=None,
        limits=GenerationLimits(max_tokens=max_tokens),
        sampling=structs.replace(chat.sampling, logprobs=None),
    )


def summary_of(pieces: Sequence[str]) -> str:
    """Returns the summary's text. Raises `UnusableAnswer` if it is empty."""
    summary = "".join(pieces).strip()
    if not summary:
        raise errors.UnusableAnswer("The model made no summary; try again.")
    return summary


def _threshold(entries: "Sequence[api.ContextManagementParam]", context_tokens: int) -> float:
    full = context_tokens * FULL_SHARE
    thresholds = (entry.get("compact_threshold") for entry in entries)
    return min([full, *(float(threshold) for threshold in thresholds if threshold is not None)])


async def _context_tokens(model: TokenCounter) -> int:
    try:
        return await model.load_context_tokens()
    except errors.UnsupportedField as error:
        raise errors.UnsupportedField(
            "`context_management` needs a model whose tokens can be counted; leave it out.",
            param="context_management",
        ) from error


async def _count_kept_items(
    model: TokenCounter, resolved: ResolvedRequest, tokens_limit: float
) -> int | None:
    items = resolved.items
    order = reading_order(items)
    read = [items[index] for index in order]
    if not read:
        return None
    start = _last_turn(read)
    turn = await replace(resolved, items=read[start:]).chat_after(())
    if await _tokens(model, turn) > tokens_limit:
        start = _last_cut(read)
    return len(items) - order[start] if _has_unsummarized(read[:start]) else None


def _last_turn(items: Sequence[Item]) -> int:
    """Returns where the current turn begins: at the first of the last messages in a row that are
    not the assistant's, or before a call whose output follows them; 0 if there are none."""
    index = len(items)
    while index and not _is_input_message(items[index - 1]):
        index -= 1
    while index > 1 and _is_input_message(items[index - 2]):
        index -= 1
    return max((cut for cut in between_calls(items) if cut < index), default=0)


def _last_cut(items: Sequence[Item]) -> int:
    """Returns the last index that separates no call from its output; 0 if there is none."""
    return max(between_calls(items), default=0)


def _is_input_message(item: Item) -> bool:
    return bool(item["type"] == "message" and item["role"] != "assistant")


def _has_unsummarized(items: Sequence[Item]) -> bool:
    """True if any item is neither a summary nor a message that stays."""
    return any(
        item["type"] != "compaction" and item.get("role") not in ("system", "developer")
        for item in items
    )


async def _tokens(model: TokenCounter, chat: Chat) -> float:
    try:
        return await model.count_prompt_tokens(chat)
    except errors.ContextLengthExceeded:  # it is too long to be tokenized
        return float("inf")
