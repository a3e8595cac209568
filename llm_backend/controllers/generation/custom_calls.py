"""Translation of custom tools in chats: to functions for the model, and calls of these functions
back to custom calls for the client. Pure."""

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.generation.custom_input import CustomInput
from llm_backend.controllers.generation.custom_tools import INPUT, custom_function
from llm_backend.controllers.generation.field_paths import rename_fields
from llm_backend.controllers.generation.tool_choice import chosen_name
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


_FUNCTION = re.compile(r"tools\[(\d+)\]\.function\b")
_FORMAT = re.compile(rf"\.parameters\.properties\.{INPUT}\.[\w-]+")


def custom_names(body: "api.CreateChatCompletionRequest") -> frozenset[str]:
    """Returns the names of the chat's custom tools."""
    tools = body.get("tools") or ()
    return frozenset(tool["custom"]["name"] for tool in tools if tool["type"] == "custom")


def with_functions(body: "api.CreateChatCompletionRequest") -> "api.CreateChatCompletionRequest":
    """Returns the chat with functions in place of custom tools, also in calls and in `tool_choice`.
    Raises `UnsupportedField` for a format that cannot be enforced."""
    messages = [_with_function_calls(message) for message in body["messages"]]
    translated: JsonObject = {**body, "messages": messages}
    if body.get("tools"):
        tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(body["tools"])]
        translated["tools"] = tools
    choice = body.get("tool_choice")
    if isinstance(choice, Mapping):
        translated["tool_choice"] = _choice(choice, custom_names(body))
    return cast("api.CreateChatCompletionRequest", translated)


def translate_error_names(
    body: "api.CreateChatCompletionRequest",
) -> AbstractContextManager[None]:
    """Rewrites `param` of errors in a custom tool's function to the client's name of the field."""
    tools = body.get("tools") or ()

    def rename(path: str) -> str:
        match = _FUNCTION.match(path)
        if match is None or tools[int(match[1])]["type"] != "custom":
            return path
        rest = _FORMAT.sub(".format.grammar.definition", path[match.end() :])
        return f"tools[{match[1]}].custom{rest}"

    return rename_fields(rename)


class CustomCalls:
    """Translates calls of the functions with these `names` back to calls of custom tools."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._inputs: dict[tuple[int, int], CustomInput] = {}  # by choice and call

    async def translate(
        self, deltas: AsyncGenerator[ChatDelta, None]
    ) -> AsyncGenerator[ChatDelta, None]:
        """Yields the deltas as the client sees them."""
        async with aclosing(deltas):
            async for delta in deltas:
                yield (
                    self._translate_delta(delta)
                    if delta.tool_calls or delta.finish_reason
                    else delta
                )

    def _translate_delta(self, delta: ChatDelta) -> ChatDelta:
        calls = [
            translated for call in delta.tool_calls for translated in self._call(delta.choice, call)
        ]
        if delta.finish_reason is not None:
            calls += self._finish_inputs(delta.choice)
        return replace(delta, tool_calls=calls)

    def _call(self, choice: int, call: ToolCall) -> Iterator[ToolCall]:
        key = choice, call.index
        if call.id is not None and call.name in self._names:
            self._inputs[key] = CustomInput()
        if key not in self._inputs:
            yield call
            return
        text = self._inputs[key].feed(call.arguments)
        if text or call.id is not None:
            yield replace(call, arguments=text, is_custom=True)

    def _finish_inputs(self, choice: int) -> Iterator[ToolCall]:
        """Yields the rest of each input; malformed arguments are the input themselves."""
        for (call_choice, index), custom_input in self._inputs.items():
            if call_choice == choice and (rest := custom_input.finish()):
                yield ToolCall(index=index, arguments=rest, is_custom=True)


def _tool(tool: JsonMapping, where: str) -> JsonMapping:
    if tool["type"] != "custom":
        return tool
    custom = tool["custom"]
    grammar = (custom.get("format") or {}).get("grammar")
    function = custom_function(grammar, f"{where}.custom.format.grammar")
    fields = {
        name: custom[name] for name in ("name", "description") if custom.get(name) is not None
    }
    return {"type": "function", "function": {**fields, **function}}


def _choice(choice: JsonMapping, names: frozenset[str]) -> JsonMapping:
    if choice["type"] != "allowed_tools":
        return _named_choice(choice, names)
    allowed = choice["allowed_tools"]
    tools = [_named_choice(one, names) for one in allowed["tools"]]
    return {**choice, "allowed_tools": {**allowed, "tools": tools}}


def _named_choice(choice: JsonMapping, names: frozenset[str]) -> JsonMapping:
    """Returns the function of a chosen custom tool; other choices are unchanged."""
    name = chosen_name(choice, "custom")
    if choice.get("type") != "custom" or name not in names:
        return choice
    return {"type": "function", "function": {"name": name}}


def _with_function_calls(message: JsonMapping) -> JsonMapping:
    calls: Sequence[JsonMapping] = message.get("tool_calls") or ()
    if all(call["type"] != "custom" for call in calls):
        return message
    return {**message, "tool_calls": [_function_call(call) for call in calls]}


def _function_call(call: JsonMapping) -> JsonMapping:
    if call["type"] != "custom":
        return call
    custom = call["custom"]
    arguments = json.dumps({INPUT: custom["input"]}, ensure_ascii=False)
    function = {"name": custom["name"], "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": function}
