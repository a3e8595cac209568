"""Tools that the client runs: functions and custom tools, also in namespaces, as functions of a
chat. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_backend.controllers.generation.custom_tools import custom_function
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    CallableTool = api.FunctionTool | api.FunctionToolParam | api.CustomToolParam

COPIED: Final = ("parameters", "strict")
_NAMESPACE_END = "__"  # function names allow no other separator


@dataclass(frozen=True, kw_only=True)
class ClientTool:
    """One tool of the client: the chat's function for it, and its name in response items."""

    function: JsonObject
    name: str
    is_custom: bool
    namespace: str | None = None

    @property
    def chat_name(self) -> str:
        """Name shown to the model."""
        return str(self.function["function"]["name"])


def chat_name(name: str, namespace: str | None) -> str:
    """Returns the name shown to the model for this tool."""
    return name if namespace is None else f"{namespace}{_NAMESPACE_END}{name}"


def client_tools(
    tool: "api.Tool | api.FunctionToolParam", where: str, namespace: str | None = None
) -> Iterator[ClientTool]:
    """Yields the tools of an entry of `tools`. Raises `UnsupportedField` for one that local models
    cannot call; `where` is its path."""
    if tool["type"] == "function" or tool["type"] == "custom":
        _check_callable(tool, where)
        yield _client_tool(tool, where, namespace)
    elif tool["type"] == "namespace":
        for index, inner in enumerate(tool["tools"]):
            yield from client_tools(inner, f"{where}.tools[{index}]", tool["name"])
    else:
        raise UnsupportedField(
            f"No tool of type `{tool['type']}` is offered here; give local models a `function` or "
            "a `custom` tool that you run.",
            param=f"{where}.type",
        )


def _check_callable(tool: "CallableTool", where: str) -> None:
    if tool.get("defer_loading"):
        raise UnsupportedField(
            "Local models are shown all tools at once; leave `defer_loading` out.",
            param=f"{where}.defer_loading",
        )
    callers = tool.get("allowed_callers")
    if callers is not None and list(callers) != ["direct"]:
        raise UnsupportedField(
            "Only the model can call tools on this server: `allowed_callers` must be "
            '`["direct"]`, or absent.',
            param=f"{where}.allowed_callers",
        )


def _client_tool(tool: "CallableTool", where: str, namespace: str | None) -> ClientTool:
    if tool["type"] == "custom":
        form = tool.get("format")
        grammar = form if form is not None and form["type"] == "grammar" else None
        function = custom_function(grammar, f"{where}.format")
    else:
        function = {name: tool[name] for name in COPIED if tool.get(name) is not None}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    function["name"] = chat_name(tool["name"], namespace)
    return ClientTool(
        function={"type": "function", "function": function},
        name=tool["name"],
        is_custom=tool["type"] == "custom",
        namespace=namespace,
    )
