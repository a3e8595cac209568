"""Tool choice: tools shown to the model and tools that it may or must call (pure)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.errors import InvalidRequest, UnsupportedField

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    ChatTool = api.ChatCompletionTool | api.CustomToolChatCompletions | api.FileSearchTool

_FUNCTION_NAME = re.compile(rf"[A-Za-z0-9_.\-]{{1,{FUNCTION_NAME_LENGTH}}}")


@dataclass(frozen=True, kw_only=True)
class ToolChoice:
    """Tools that the model is shown. `names` are those that it may call; None means all of them.
    `must_call` is True if it must call one."""

    tools: Sequence[Mapping[str, Any]] = ()
    must_call: bool = False
    names: frozenset[str] | None = None


def tool_choice_of(body: "api.CreateChatCompletionRequest") -> ToolChoice:
    """Returns the tool choice of a body; raises `InvalidRequest` with the field's name."""
    choice = body.get("tool_choice")
    tools = _functions(body.get("tools") or [])
    if choice is not None and not tools:
        raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
    if choice == "none":
        return ToolChoice()
    if choice is None or choice == "auto":
        return ToolChoice(tools=tools)
    if choice == "required":
        return ToolChoice(tools=tools, must_call=True)
    if choice["type"] == "allowed_tools":
        allowed = choice["allowed_tools"]
        names = _select_names(allowed["tools"], tools, "tool_choice.allowed_tools.tools")
        return ToolChoice(tools=tools, must_call=allowed["mode"] == "required", names=names)
    return ToolChoice(
        tools=tools, must_call=True, names=_select_names([choice], tools, "tool_choice")
    )


def chosen_name(choice: Mapping[str, Any], kind: str) -> str | None:
    """Returns the name of the tool of this kind that a choice selects. By the document an entry of
    `allowed_tools` is any object: one without a name selects none."""
    tool = choice.get(kind)
    name = tool.get("name") if isinstance(tool, Mapping) else None
    return name if isinstance(name, str) else None


def _functions(tools: "Sequence[ChatTool]") -> "Sequence[api.ChatCompletionTool]":
    functions: list[api.ChatCompletionTool] = []
    for position, tool in enumerate(tools):
        if tool["type"] != "function":
            raise UnsupportedField(
                f"Local models call tools of type `function`, not `{tool['type']}`.",
                param=f"tools[{position}].type",
            )
        functions.append(tool)
    check_functions(functions)
    return functions


def check_functions(tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises `InvalidRequest`, naming the field, for a function that no model can be shown."""
    for position, tool in enumerate(tools):
        where = f"tools[{position}].function.parameters"
        _check_parameters(tool["function"].get("parameters") or {}, where)
    names: set[str] = set()
    for position, tool in enumerate(tools):
        name = tool["function"]["name"]
        if name in names:
            raise InvalidRequest(
                f"Two tools are named `{name}`; every tool must have a name of its own.",
                param=f"tools[{position}].function.name",
            )
        if not _FUNCTION_NAME.fullmatch(name):
            raise InvalidRequest(
                f"`{name[:80]}` is not a valid function name: it must have 1 to "
                f"{FUNCTION_NAME_LENGTH} letters, digits, `_`, `-` or `.`.",
                param=f"tools[{position}].function.name",
            )
        names.add(name)


def _check_parameters(schema: Mapping[str, Any], where: str) -> None:
    if schema.get("type", "object") != "object":
        raise InvalidRequest(
            "The parameters of a function must be an object's: their `type` must be `object`.",
            param=f"{where}.type",
        )
    for name, kind in (("properties", dict), ("required", list)):
        if not isinstance(schema.get(name, kind()), kind):
            raise InvalidRequest(
                f"`{name}` must be {'an object' if kind is dict else 'a list'} in a JSON Schema.",
                param=f"{where}.{name}",
            )


def _select_names(
    choices: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], where: str
) -> frozenset[str]:
    """Returns the selected names. Raises `InvalidRequest` for a name that no tool has."""
    if not choices:
        raise InvalidRequest("No tool is allowed; use `tool_choice: none`.", param=where)
    known = {tool["function"]["name"] for tool in tools}
    names: set[str] = set()
    for choice in choices:
        name = chosen_name(choice, "function")
        if name is None or name not in known:
            given = name or chosen_name(choice, "custom") or ""
            raise InvalidRequest(f"`{given[:80]}` is not among the `tools`.", param=where)
        names.add(name)
    return frozenset(names)
