"""A response's `tools` and `tool_choice` -> those of the chat that answers it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.controllers.responses.server_tools import OpenTools
from llm_backend.errors import UnsupportedField

__all__ = ["allowed_names", "chat_tools", "shown_tool"]

Json = dict[str, Any]
Body = Mapping[str, Any]


def chat_tools(body: Body, opened: OpenTools) -> tuple[Json, list[int]]:
    """The chat's fields, and at which place of the response's `tools` each of the chat's stands."""
    tools: list[Json] = []
    places: list[int] = []
    for place, tool in enumerate(body.get("tools") or ()):
        functions = _functions(tool, place, opened)
        tools += functions
        places += [place] * len(functions)
    choice = body.get("tool_choice")
    if not tools or choice is None:
        return ({"tools": tools} if tools else {}), places
    return {"tools": tools, "tool_choice": _choice(choice, opened)}, places


def allowed_names(body: Body, opened: OpenTools) -> frozenset[str] | None:
    """Which functions may be called in every round; None for all. One that is to be called is to
    be called once."""
    choice = body.get("tool_choice")
    if not isinstance(choice, Mapping) or choice["type"] != "allowed_tools":
        return None
    return frozenset(name for entry in choice["tools"] for name in _names(entry, opened))


def shown_tool(tool: Body) -> Json:
    """The tool as a response repeats it, without what is secret of it."""
    if tool["type"] == "mcp":
        shown = {name: value for name, value in tool.items() if name != "authorization"}
        return shown | {"headers": dict.fromkeys(tool.get("headers") or {}, "<redacted>") or None}
    if tool["type"] != "function":
        return dict(tool)
    return {"strict": False, "parameters": None, **tool}


def _functions(tool: Body, place: int, opened: OpenTools) -> Sequence[Json]:
    if server_tool := opened.at(place):
        return server_tool.functions
    if tool["type"] != "function":
        raise UnsupportedField(
            f"Local models call tools of type `function`; `{tool['type']}` is OpenAI's own.",
            param=f"tools[{place}].type",
        )
    named = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in named if tool.get(name) is not None}
    return [{"type": "function", "function": function}]


def _choice(choice: Any, opened: OpenTools) -> Any:
    if isinstance(choice, str):
        return choice
    if choice["type"] == "allowed_tools":
        allowed = [name for entry in choice["tools"] for name in _names(entry, opened)]
        return _allowed(choice["mode"], allowed)
    names = _names(choice, opened)
    if not names:
        raise UnsupportedField(
            f"`tool_choice` of type `{choice['type']}` means none of the `tools`.",
            param="tool_choice.type",
        )
    if choice["type"] == "function":
        return {"type": "function", "function": {"name": names[0]}}
    return _allowed("required", names)


def _names(choice: Body, opened: OpenTools) -> Sequence[str]:
    """The names of the functions that an entry means."""
    if choice.get("type") == "function":
        return [str(choice.get("name", ""))]
    return opened.chosen(choice) if "type" in choice else []


def _allowed(mode: str, names: Sequence[str]) -> Json:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
