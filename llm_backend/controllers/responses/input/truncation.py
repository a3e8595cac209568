"""Truncation (`truncation: auto`) of a response's items."""

from collections.abc import Sequence

from llm_backend.backends.base import Chat
from llm_backend.controllers.generation.truncation import TokenCounter, find_first_fitting, fits
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest


async def truncate(
    model: TokenCounter, resolved: ResolvedRequest, output: Sequence[Item] = ()
) -> ResolvedRequest:
    """Returns the request without its oldest items, as few of them as make room for `output`;
    unchanged if it fits or `truncation` is not `auto`.

    Instructions at the beginning stay. Cuts before user messages are tried first; if none of them
    is enough, any cut that does not separate a call from its output. A request that cannot fit is
    unchanged: the model refuses it.
    """
    if resolved.body.get("truncation") != "auto":
        return resolved
    if await fits(model, await resolved.chat_after(output)):
        return resolved

    kept = resolved.instructions_count

    async def chat_from(start: int) -> Chat:
        return await resolved.without_oldest(start - kept).chat_after(output)

    items = [*resolved.items, *output]
    cuts = [cut for cut in between_calls(items) if cut > kept]
    turns = sorted({*cuts} & {*_turns(items)})
    start = await find_first_fitting(model, chat_from, turns, cuts)
    return resolved if start is None else resolved.without_oldest(start - kept)


def _turns(items: Sequence[Item]) -> list[int]:
    """Returns the indices of messages not by the assistant, without the first item."""
    return [
        index
        for index, item in enumerate(items)
        if index and item["type"] == "message" and item["role"] != "assistant"
    ]


def between_calls(items: Sequence[Item]) -> list[int]:
    """Returns the indices before which items can be cut without parting an output from its call. An
    approved call that has not been run yet will have its output after all items."""
    call_indices: dict[str, int] = {}
    waiting: set[str] = set()  # requests for approval of such calls
    # Index of the earliest call whose output has this index or a later one.
    first = [len(items)] * len(items)
    for index, item in enumerate(items):
        request_id = item.get("approval_request_id")
        call_id = item["id"] if item["type"] == "mcp_approval_request" else item.get("call_id")
        if request_id:
            first[index] = call_indices.get(request_id, index)
            if item.get("approve"):
                waiting.add(request_id)
            else:
                waiting.discard(request_id)
        elif call_id and item["type"].endswith("_output"):
            first[index] = call_indices.get(call_id, index)
        elif call_id:
            call_indices[call_id] = index
    if waiting:
        first[-1] = min(first[-1], *(call_indices.get(id, len(items)) for id in waiting))
    for index in range(len(items) - 2, -1, -1):
        first[index] = min(first[index], first[index + 1])
    return [index for index in range(1, len(items)) if first[index] >= index]
