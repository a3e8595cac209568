"""Validation of one `mcp` entry of a response's `tools`: unsupported fields, HTTP headers for the
MCP server, allowed tools, and tools that need approval. Pure."""

from collections.abc import Mapping
from typing import Any

from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.controllers.services.server_tools import ToolContext
from llm_backend.errors import InvalidRequest, UnsupportedField

MAX_SERVERS = 8  # servers of one response: each is a connection, its tools are in every prompt
OWN_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host",
               "transfer-encoding", "upgrade"}  # fmt: skip


def check_entry(context: ToolContext) -> None:
    """Raises `InvalidRequest` if the entry has fields or values that are not supported."""
    tool, where = context.tool, context.where
    for name, why in (
        ("connector_id", "OpenAI's connectors are not offered here; name a `server_url`."),
        ("tunnel_id", "OpenAI's tunnels are not offered here; name a `server_url`."),
        ("defer_loading", "Tools are not searched for here; leave `defer_loading` out."),
    ):
        if tool.get(name):
            raise UnsupportedField(why, param=f"{where}.{name}")
    if "direct" not in (tool.get("allowed_callers") or ["direct"]):
        raise UnsupportedField(
            "Here only the model itself calls tools: `allowed_callers` must have `direct` in it.",
            param=f"{where}.allowed_callers",
        )
    mcp_entries = [one for one in context.body.get("tools") or () if one["type"] == "mcp"]
    if len(mcp_entries) > MAX_SERVERS:
        raise InvalidRequest(f"`tools` names more than {MAX_SERVERS} MCP servers.", param="tools")
    if [one["server_label"] for one in mcp_entries].count(tool["server_label"]) > 1:
        raise InvalidRequest(
            f"Two MCP servers have the label `{tool['server_label']}`.",
            param=f"{where}.server_label",
        )


def headers_of(context: ToolContext) -> dict[str, str]:
    """Returns the HTTP headers that the entry adds to those of the MCP protocol. Raises
    `InvalidRequest` for a header that cannot be sent."""
    headers: dict[str, str] = dict(context.tool.get("headers") or {})
    for name, value in headers.items():
        is_valid = value.isprintable() and value.isascii() and name.isascii()
        if name.lower() in OWN_HEADERS or not is_valid or not name.replace("-", "").isalnum():
            raise InvalidRequest(
                f"The header `{name[:80]}` cannot be sent.", param=f"{context.where}.headers"
            )
    token = context.tool.get("authorization")
    if token is None:
        return headers
    if any(name.lower() == "authorization" for name in headers):
        raise InvalidRequest(
            "Both `authorization` and a header of that name are given.",
            param=f"{context.where}.authorization",
        )
    if not (token.isascii() and token.isprintable()):
        raise InvalidRequest(
            "The token is not printable ASCII.", param=f"{context.where}.authorization"
        )
    return {**headers, "Authorization": f"Bearer {token}"}


def allows(allowed: Any, tool: Item) -> bool:
    """True if `allowed_tools` includes this tool."""
    if allowed is None:
        return True
    if isinstance(allowed, Mapping):
        return _matches(allowed, tool)
    return tool["name"] in allowed


def needs_approval(policy: Any, tool: Item) -> bool:
    """True if the policy requires approval of the tool, also if none of its filters matches."""
    if not isinstance(policy, Mapping):
        return bool(policy != "never")
    always, never = policy.get("always"), policy.get("never")
    if always is not None and _matches(always, tool):
        return True
    return never is None or not _matches(never, tool)


def _matches(tool_filter: Item, tool: Item) -> bool:
    """True if the filter matches the tool; an empty filter matches none."""
    names, read_only = tool_filter.get("tool_names"), tool_filter.get("read_only")
    if names is None and read_only is None:
        return False
    is_read_only = bool((tool.get("annotations") or {}).get("readOnlyHint"))
    return (names is None or tool["name"] in names) and (
        read_only is None or is_read_only == read_only
    )
