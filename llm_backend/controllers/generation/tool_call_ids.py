"""Validation of tool calls and their outputs, which are matched by id. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping

_CALLS = {"function_call": "function call", "custom_tool_call": "custom tool call"}
_OUTPUTS = {f"{kind}_output": name for kind, name in _CALLS.items()}
_SHOWN_IDS = 5  # ids in an error message
_ID_LENGTH = 80


def check_messages(messages: Sequence[JsonMapping]) -> None:
    """Raises `InvalidRequest` unless each message of the assistant with `tool_calls` is followed by
    `tool` messages that answer all of them, and by no others."""
    calls: frozenset[str] = frozenset()
    unanswered: dict[str, None] = {}
    call_index = 0
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            _check_output(message, calls, f"messages[{index}]")
            unanswered.pop(message["tool_call_id"], None)
            continue
        _check_answered(unanswered, call_index)
        unanswered = dict.fromkeys(str(call["id"]) for call in message.get("tool_calls") or ())
        calls, call_index = frozenset(unanswered), index
    _check_answered(unanswered, call_index)


def check_items(context_items: Iterable[JsonMapping], input_items: Iterable[JsonMapping]) -> None:
    """Raises `InvalidRequest` unless each call among the items has its output after it, and each
    output its call before it, and each approval its request. `input_items` are those of the
    request, `context_items` those of the conversation. An interrupted call needs no output."""
    calls: set[tuple[str, str]] = set()
    unanswered: dict[tuple[str, str], None] = {}
    numbered = [("input", item) for item in context_items]
    numbered += [(f"input[{index}].call_id", item) for index, item in enumerate(input_items)]
    request_ids: set[str] = set()
    for where, item in numbered:
        if item["type"] == "mcp_approval_request":
            request_ids.add(item["id"])
        elif item["type"] == "mcp_approval_response":
            if (id := str(item["approval_request_id"])) not in request_ids:
                raise InvalidRequest(
                    f"No approval request has the id `{id[:_ID_LENGTH]}`.",
                    param=where.replace("call_id", "approval_request_id"),
                )
        elif name := _CALLS.get(item["type"]):
            key = name, str(item["call_id"])
            calls.add(key)
            if item.get("status") != "incomplete":
                unanswered[key] = None
        elif name := _OUTPUTS.get(item["type"]):
            key = name, str(item["call_id"])
            if key not in calls:
                raise InvalidRequest(
                    f"No tool call found for {name} output with call_id {key[1][:_ID_LENGTH]}.",
                    param=where,
                )
            unanswered.pop(key, None)
    for name, id in unanswered:
        raise InvalidRequest(f"No tool output found for {name} {id[:_ID_LENGTH]}.", param="input")


def _check_output(message: JsonMapping, calls: frozenset[str], where: str) -> None:
    if not calls:
        raise InvalidRequest(
            "A message of the role `tool` must follow the message of the assistant whose "
            "`tool_calls` it answers.",
            param=f"{where}.role",
        )
    id = str(message["tool_call_id"])
    if id not in calls:
        raise InvalidRequest(
            f"`{id[:_ID_LENGTH]}` is not among the `tool_calls` that this message follows.",
            param=f"{where}.tool_call_id",
        )


def _check_answered(unanswered: Mapping[str, None], call_index: int) -> None:
    if unanswered:
        ids = ", ".join(f"`{id[:_ID_LENGTH]}`" for id in list(unanswered)[:_SHOWN_IDS])
        raise InvalidRequest(
            "A message of the assistant with `tool_calls` must be followed by messages of the role "
            f"`tool` that answer each `tool_call_id`. These have no answer: {ids}.",
            param=f"messages[{call_index}].tool_calls",
        )
