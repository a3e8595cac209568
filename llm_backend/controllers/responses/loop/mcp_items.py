"""The items of `mcp` tools: the list of a server's tools, calls, requests for approval and answers
to them; what they tell the model, and what they say is still to be done. Pure but for the ids it
makes up."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.controllers.responses.input.items import new_id
from llm_backend.controllers.responses.loop.server_tools import ServerCall, ToolContext
from llm_backend.errors import InvalidRequest

__all__ = [
    "ApprovedCall",
    "find_approved_calls",
    "find_tool_list",
    "messages_from",
    "model_tool_name",
    "new_item",
]

Json = dict[str, Any]
Item = Mapping[str, Any]

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_.\-]")


@dataclass(frozen=True, kw_only=True)
class ApprovedCall(ServerCall):
    """A call that the client has approved of."""

    request_id: str


def messages_from(item: Item) -> Sequence[Json]:
    """A request for approval is shown as the call that it asks for, and answered by the call's
    output or by the client's no."""
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
    """By which name the model knows a tool: servers may have tools of the same name."""
    return _UNNAMEABLE.sub("_", f"{label}__{name}")[:FUNCTION_NAME_LENGTH]


def find_tool_list(asked: ToolContext) -> Item | None:
    """The item that lists this server's tools, if the conversation has one."""
    label = asked.tool["server_label"]
    for item in reversed(asked.items):
        if item["type"] == "mcp_list_tools" and item["server_label"] == label:
            return None if item.get("error") else item
    return None


def find_approved_calls(asked: ToolContext, label: str) -> list[ApprovedCall]:
    """The calls of this server's tools that were approved and not made yet."""
    requests = {item["id"]: item for item in asked.items if item["type"] == "mcp_approval_request"}
    made = {item.get("approval_request_id") for item in asked.items if item["type"] == "mcp_call"}
    calls = []
    for answer in asked.items:
        if answer["type"] != "mcp_approval_response":
            continue
        request = requests.get(request_id := answer["approval_request_id"])
        if request is None:
            raise InvalidRequest(
                f"Nothing has asked for the approval `{request_id}`.", param="input"
            )
        if answer["approve"] and request["server_label"] == label and request_id not in made:
            made.add(request_id)
            name = model_tool_name(label, request["name"])
            calls.append(
                ApprovedCall(name=name, arguments=request["arguments"], request_id=request_id)
            )
    return calls


def _outcome(item: Item) -> str:
    """A call's item as the text that the model reads."""
    error = item.get("error")
    if not error:
        return item.get("output") or ""
    if isinstance(error, str):
        return f"Error: {error}"
    if error["type"] == "mcp_tool_execution_error":
        return "Error: " + "\n".join(str(part.get("text", "")) for part in error["content"])
    return f"Error: {error['message']}"


def _call_message(item: Item, call_id: str) -> Json:
    name = model_tool_name(item["server_label"], item["name"])
    function = {"name": name, "arguments": item["arguments"] or "{}"}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


def _output_message(call_id: str, text: str) -> Json:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def new_item(kind: str) -> Json:
    """The beginning of an item of this type."""
    return {"id": new_id(kind), "type": kind}
