"""Outputs of tool calls in a chat. Pure.

Items may stand between a call and its output: text, calls of another tool, or a message of the user
beside an approval. In a chat, outputs directly follow the message with the calls: many upstreams
and templates refuse any other order, and a call without an output.
"""

from collections.abc import Sequence

from llm_backend.json_types import JsonMapping, JsonObject

NO_OUTPUT = "This call was not run."


def join_outputs(messages: Sequence[JsonObject]) -> list[JsonObject]:
    """Returns the messages with each output behind the message with its call. A call without an
    output gets one that states it, for example a call that the client has not approved."""
    outputs: dict[int, list[JsonObject]] = {}  # by index of the message with the calls
    latest: dict[str, int] = {}  # index of the latest message with a call, by the call's id
    joined: set[int] = set()  # indices of the outputs
    for index, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            latest[call["id"]] = index
        call_index = latest.get(message.get("tool_call_id", ""))
        if call_index is not None:
            outputs.setdefault(call_index, []).append(message)
            joined.add(index)
    ordered: list[JsonObject] = []
    for index, message in enumerate(messages):
        if index not in joined:
            found = outputs.get(index, [])
            ordered += [message, *found, *_missing_outputs(message, found)]
    return ordered


def _missing_outputs(message: JsonMapping, outputs: Sequence[JsonMapping]) -> list[JsonObject]:
    answered = {output["tool_call_id"] for output in outputs}
    return [
        {"role": "tool", "tool_call_id": call["id"], "content": NO_OUTPUT}
        for call in message.get("tool_calls") or ()
        if call["id"] not in answered
    ]
