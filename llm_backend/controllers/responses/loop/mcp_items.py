"""Items of `mcp` tools: tool lists, calls, approval requests and approval responses. They are
translated to chat messages, and searched for approved calls that have not been run. Pure but for
the ids that it generates."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.controllers.response_items.items import new_id
from llm_backend.controllers.services.server_tools import ServerCall, ToolContext
from llm_backend.json_types import JsonObject

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(frozen=True, kw_only=True)
class ApprovedCall(ServerCall):
    """A call that the client has approved."""

    request_id: str


def messages_from(item: Item) -> Sequence[JsonObject]:
    """Returns the chat messages of an item. An approval request becomes an assistant's tool call;
    the call's output, or the client's refusal, becomes the `tool` message that answers it."""
    match item["type"]:
        case "mcp_approval_request":
            return [_call_message(item, item["id"])]
        case "mcp_approval_response" if not item["approve"]:
            reason = item.get("reason") or "no reason given"
            return [
                _output_message(
                    item["approval_request_id"], f"The user did not allow this: {reason}"
                )
            ]
        case "mcp_call" if item.get("approval_request_id"):
            return [_output_message(item["approval_request_id"], _outcome(item))]
        case "mcp_call":
            return [_call_message(item, item["id"]), _output_message(item["id"], _outcome(item))]
    return []


def model_tool_name(label: str, name: str) -> str:
    """Returns the name of a tool's function for the model. The server's label is its prefix,
    because two servers may have tools of the same name."""
    return _UNNAMEABLE.sub("_", f"{label}__{name}")[:FUNCTION_NAME_LENGTH]


def find_tool_list(context: ToolContext) -> Item | None:
    """Returns the conversation's latest item that lists this server's tools; None if there is none
    or its listing failed."""
    label = context.tool["server_label"]
    for item in reversed(context.items):
        if item["type"] == "mcp_list_tools" and item["server_label"] == label:
            return None if item.get("error") else item
    return None


def find_approved_calls(context: ToolContext, label: str) -> list[ApprovedCall]:
    """Returns the approved calls of this server's tools that have not been run yet."""
    requests = {
        item["id"]: item for item in context.items if item["type"] == "mcp_approval_request"
    }
    finished_ids = {
        item.get("approval_request_id") for item in context.items if item["type"] == "mcp_call"
    }
    calls = []
    for approval in context.items:
        if approval["type"] != "mcp_approval_response":
            continue
        request = requests[request_id := approval["approval_request_id"]]
        if (
            approval["approve"]
            and request["server_label"] == label
            and request_id not in finished_ids
        ):
            finished_ids.add(request_id)
            name = model_tool_name(label, request["name"])
            calls.append(
                ApprovedCall(name=name, arguments=request["arguments"], request_id=request_id)
            )
    return calls


def _outcome(item: Item) -> str:
    """Returns the output, or the error, of a call's item as text for the model."""
    error = item.get("error")
    if not error and item.get("status") == "incomplete":
        return "Error: The call was interrupted, and may have had its effects."
    if not error:
        return item.get("output") or ""
    if isinstance(error, str):
        return f"Error: {error}"
    if error["type"] == "mcp_tool_execution_error":
        return "Error: " + "\n".join(str(part.get("text", "")) for part in error["content"])
    return f"Error: {error['message']}"


def _call_message(item: Item, call_id: str) -> JsonObject:
    name = model_tool_name(item["server_label"], item["name"])
    function = {"name": name, "arguments": item["arguments"] or "{}"}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


def _output_message(call_id: str, text: str) -> JsonObject:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def new_item(kind: str) -> JsonObject:
    """Returns a new item of this type with a generated id."""
    return {"id": new_id(kind), "type": kind}
