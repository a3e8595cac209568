"""Translation of a response's `tools` and `tool_choice` to those of a chat. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_backend.controllers.response_items.client_tools import ClientTool, chat_name, client_tools
from llm_backend.controllers.services.server_tools import OpenTools
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


@dataclass(frozen=True, kw_only=True)
class ChatTools:
    """Tools of a response as tools of its chat. `fields` are the fields of the chat's request.
    `indices` has, for each tool, its index in the response's `tools`. `client_tools` are the
    client's tools by their names in the chat. `allowed_names` may be called in every round; None
    means all. A call is forced in the first round only."""

    fields: JsonObject
    indices: Sequence[int]
    client_tools: Mapping[str, ClientTool]
    allowed_names: frozenset[str] | None = None


def chat_tools(body: "api.CreateResponse", open_tools: OpenTools) -> ChatTools:
    """Returns the tools of the chat that answers this body; `open_tools` are its server tools."""
    tools: list[JsonObject] = []
    indices: list[int] = []
    found: dict[str, ClientTool] = {}
    for index, tool in enumerate(body.get("tools") or ()):
        functions = _functions(tool, index, open_tools, found)
        tools += functions
        indices += [index] * len(functions)
    choice = body.get("tool_choice")
    if not body.get("tools") and choice not in (None, "auto", "none"):
        raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
    if not tools or choice is None:
        fields: JsonObject = {"tools": tools} if tools else {}
        return ChatTools(fields=fields, indices=indices, client_tools=found)
    return ChatTools(
        fields={"tools": tools, "tool_choice": _choice(choice, open_tools)},
        indices=indices,
        client_tools=found,
        allowed_names=_names_allowed(choice, open_tools),
    )


def public_tool(tool: "api.Tool", passages_limit: int) -> JsonObject:
    """Returns the tool as a response object repeats it, without secrets; `passages_limit` is the
    default number of search results."""
    if tool["type"] == "mcp":
        public = {name: value for name, value in tool.items() if name != "authorization"}
        return public | {"headers": dict.fromkeys(tool.get("headers") or {}, "<redacted>") or None}
    if tool["type"] == "file_search":
        ranking = {"ranker": "auto", "score_threshold": 0.0, **(tool.get("ranking_options") or {})}
        public = {"max_num_results": passages_limit, "filters": None, **tool}
        return public | {"ranking_options": ranking}
    if tool["type"] != "function":
        return dict(tool)
    return {"description": None, "strict": False, "parameters": None, **tool}


def _functions(
    tool: "api.Tool", index: int, open_tools: OpenTools, found: dict[str, ClientTool]
) -> Sequence[JsonObject]:
    """Returns the functions of one entry of `tools`, and adds its client tools to `found`."""
    if server_tool := open_tools.at(index):
        return server_tool.functions
    tools = list(client_tools(tool, f"tools[{index}]"))
    found |= {one.chat_name: one for one in tools}
    return [one.function for one in tools]


def _choice(choice: "api.ToolChoiceParam", open_tools: OpenTools) -> Any:
    if isinstance(choice, str):
        return choice
    if choice["type"] == "allowed_tools":
        allowed = [name for entry in choice["tools"] for name in _names(entry, open_tools)]
        return _allowed_tools_choice(choice["mode"], allowed)
    names = _names(choice, open_tools)
    if not names:
        raise UnsupportedField(
            f"`tool_choice` of type `{choice['type']}` means none of the `tools`.",
            param="tool_choice.type",
        )
    if choice["type"] in ("function", "custom"):
        return {"type": "function", "function": {"name": names[0]}}
    return _allowed_tools_choice("required", names)


def _names_allowed(choice: "api.ToolChoiceParam", open_tools: OpenTools) -> frozenset[str] | None:
    if isinstance(choice, str) or choice["type"] != "allowed_tools":
        return None
    return frozenset(name for entry in choice["tools"] for name in _names(entry, open_tools))


def _names(choice: JsonMapping, open_tools: OpenTools) -> Sequence[str]:
    """Returns the names of the functions that a `tool_choice` entry selects."""
    if choice.get("type") in ("function", "custom"):
        return [chat_name(str(choice.get("name", "")), choice.get("namespace"))]
    return open_tools.select_functions(choice) if "type" in choice else []


def _allowed_tools_choice(mode: str, names: Sequence[str]) -> JsonObject:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}
