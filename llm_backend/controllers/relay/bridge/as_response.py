"""Bridge from chats to responses: translates the request body, and events to deltas (pure)."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from llm_backend.backends.base import Chat, ChatDelta, Message, ToolCall, Usage
from llm_backend.controllers.relay.bridge.content import response_content
from llm_backend.controllers.relay.bridge.event_fields import (
    error_in_event,
    number,
    object_in,
    required_text,
    text,
)
from llm_backend.controllers.relay.bridge.untranslatable import check_translatable
from llm_backend.controllers.response_items.items import new_id
from llm_backend.errors import ApiError, UnsupportedField, UpstreamFailed
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PATH = "/responses"

_SAME = (
    "temperature", "top_p", "service_tier", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prompt_cache_options",
)  # fmt: skip
_TRANSLATED = frozenset(
    {
        *_SAME, "model", "messages", "store", "metadata", "stream", "stream_options", "tools",
        "tool_choice", "functions", "function_call", "parallel_tool_calls", "max_tokens",
        "max_completion_tokens", "reasoning_effort", "response_format", "verbosity",
    }
)  # fmt: skip
_TEXT_FIELDS = {  # fields of the text, by type of event
    "response.output_text.delta": "delta",
    "response.output_text.done": "text",
    "response.refusal.delta": "delta",
    "response.refusal.done": "refusal",
}
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")


def as_response(
    body: "api.CreateChatCompletionRequest", chat: Chat, model: str
) -> "api.CreateResponse":
    """Returns the body of the response that answers a chat with this body; `store` is false.

    Raises `UnsupportedField` for fields that responses lack.
    """
    check_translatable(body, _TRANSLATED, other="responses")
    fields: JsonMapping = body
    rest: JsonObject = {
        "input": [
            item
            for index, message in enumerate(chat.messages)
            for item in _items(message, f"messages[{index}]")
        ],
        **{name: fields[name] for name in _SAME if fields.get(name) is not None},
        **_tools(chat),
        **_text(body),
    }
    response_body: api.CreateResponse = {
        **cast("api.CreateResponse", rest),
        "model": model,
        "stream": True,
        "store": False,
    }
    if chat.limits.max_tokens is not None:
        response_body["max_output_tokens"] = chat.limits.max_tokens
    if chat.reasoning_effort is not None:
        effort = cast("api.ReasoningEffort", chat.reasoning_effort)
        response_body["reasoning"] = {"effort": effort}
    return response_body


class EventReader:
    """Parses the events of one response. `usage` is that of the last event, and `failure` an error
    inside the stream."""

    ends_by_done = False

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_ended = False
        self.failure: ApiError | None = None
        self._calls: dict[int, int] = {}  # index of a call by its output index
        self._calls_with_arguments: set[int] = set()  # output indices with yielded arguments
        self._parts_sent: set[tuple[int, int]] = set()  # parts of messages that have been yielded

    def read(self, event: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the deltas of an event. Raises `UpstreamFailed` for a malformed one."""
        kind = text(event, "type")
        if kind in _TEXT_FIELDS:
            yield from self._text_deltas(event, kind)
        elif kind in _REASONING:
            yield ChatDelta(choice=0, reasoning=text(event, "delta"))
        elif kind == "response.output_item.added":
            yield from self._begin(event)
        elif kind == "response.function_call_arguments.delta":
            yield from self._arguments_deltas(event, "delta")
        elif kind == "response.function_call_arguments.done":
            if number(event, "output_index") not in self._calls_with_arguments:
                yield from self._arguments_deltas(event, "arguments")
        elif kind in ("response.completed", "response.incomplete"):
            yield self._end(object_in(event, "response"))
        elif kind in ("response.failed", "error") or event.get("error") is not None:
            error = object_in(event, "response").get("error") or event.get("error") or event
            self.failure = error_in_event(error)

    def _text_deltas(self, event: JsonMapping, kind: str) -> Iterator[ChatDelta]:
        """Yields a piece of a message's text; at a `done` event all of it, if it had no deltas."""
        index = _part_index(event)
        if kind.endswith(".done") and index in self._parts_sent:
            return
        self._parts_sent.add(index)
        piece = text(event, _TEXT_FIELDS[kind])
        if kind.startswith("response.refusal"):
            yield ChatDelta(choice=0, refusal=piece)
        else:
            yield ChatDelta(choice=0, content=piece)

    def _begin(self, event: JsonMapping) -> Iterator[ChatDelta]:
        item, output_index = object_in(event, "item"), number(event, "output_index")
        kind = required_text(item, "type")
        if kind in ("message", "reasoning"):
            return
        if kind != "function_call":
            raise UpstreamFailed("The upstream answered with an item that no chat has.")
        if output_index in self._calls:
            raise UpstreamFailed("The upstream began two calls with one index.")
        index = self._calls[output_index] = len(self._calls)
        call = ToolCall(
            index=index, id=required_text(item, "call_id"), name=required_text(item, "name")
        )
        yield ChatDelta(choice=0, tool_calls=[call])

    def _arguments_deltas(self, event: JsonMapping, name: str) -> Iterator[ChatDelta]:
        output_index, arguments = number(event, "output_index"), text(event, name)
        if output_index not in self._calls:
            raise UpstreamFailed("The upstream continued a tool call that is not in progress.")
        if arguments:
            self._calls_with_arguments.add(output_index)
            call = ToolCall(index=self._calls[output_index], arguments=arguments)
            yield ChatDelta(choice=0, tool_calls=[call])

    def _end(self, response: JsonMapping) -> ChatDelta:
        self.is_ended = True
        self.usage = _usage(object_in(response, "usage"))
        return ChatDelta(choice=0, finish_reason=self._reason(response))

    def _reason(self, response: JsonMapping) -> str:
        if text(object_in(response, "incomplete_details"), "reason") == "content_filter":
            return "content_filter"
        if text(response, "status") == "incomplete":
            return "length"
        return "tool_calls" if self._calls else "stop"


def _part_index(event: JsonMapping) -> tuple[int, int]:
    return number(event, "output_index"), number(event, "content_index")


def _items(message: Message, where: str) -> Iterator[JsonObject]:
    """Yields the input items of a message."""
    if message.get("name") and message["role"] != "tool":
        raise UnsupportedField(
            "The upstream's API (Responses) has no names in messages; leave it out.",
            param=f"{where}.name",
        )
    if message["role"] == "tool":
        output = response_content(message.get("content")) or ""
        call_id = message["tool_call_id"]
        yield {"type": "function_call_output", "call_id": call_id, "output": output}
        return
    if message.get("content") is not None:
        yield {"role": message["role"], "content": response_content(message["content"])}
    if message.get("refusal"):
        yield {
            "type": "message",
            "id": new_id("message"),
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "refusal", "refusal": message["refusal"]}],
        }
    for call in message.get("tool_calls") or ():
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _tools(chat: Chat) -> JsonObject:
    if not chat.tools:
        return {}
    tools = [_tool(tool["function"]) for tool in chat.tools]
    fields = {"tools": tools, "parallel_tool_calls": chat.parallel_tool_calls}
    names = sorted(chat.callable_names or ())
    choices = [{"type": "function", "name": name} for name in names]
    mode = "required" if chat.must_call else "auto"
    if chat.callable_names is None:
        return {**fields, "tool_choice": mode}
    if chat.must_call and len(names) == 1:
        return {**fields, "tool_choice": choices[0]}
    return {**fields, "tool_choice": {"type": "allowed_tools", "mode": mode, "tools": choices}}


def _tool(function: JsonMapping) -> JsonObject:
    return {
        "type": "function",
        "name": function["name"],
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": bool(function.get("strict")),  # responses default to strict
        **({"description": function["description"]} if function.get("description") else {}),
    }


def _text(body: "api.CreateChatCompletionRequest") -> JsonObject:
    """Returns the `text` field: format and verbosity."""
    response_format = body.get("response_format")
    fields: JsonObject = {}
    if response_format is not None and response_format["type"] == "json_schema":
        fields["format"] = {"type": "json_schema", **response_format["json_schema"]}
    elif response_format is not None and response_format["type"] == "json_object":
        fields["format"] = {"type": "json_object"}
    if body.get("verbosity") is not None:
        fields["verbosity"] = body["verbosity"]
    return {"text": fields} if fields else {}


def _usage(usage: JsonMapping) -> Usage:
    input_details = object_in(usage, "input_tokens_details")
    output_details = object_in(usage, "output_tokens_details")
    return Usage(
        prompt_tokens=number(usage, "input_tokens"),
        completion_tokens=number(usage, "output_tokens"),
        cached_tokens=number(input_details, "cached_tokens"),
        image_tokens=number(input_details, "image_tokens"),
        audio_tokens=number(input_details, "audio_tokens"),
        reasoning_tokens=number(output_details, "reasoning_tokens"),
    )
