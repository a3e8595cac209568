"""Validation of one `mcp` entry of a response's `tools`: unsupported fields, HTTP headers for the
MCP server, allowed tools, and tools that need approval. Pure."""

from collections.abc import Mapping
from typing import Any

from llm_backend.controllers.responses.loop.server_tools import ToolContext
from llm_backend.errors import InvalidRequest, UnsupportedField

__all__ = ["allows", "check_entry", "headers_of", "needs_approval"]

Item = Mapping[str, Any]

SERVERS = 8  # of one response: each is a connection, and its tools are in every prompt
OWN_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host",
               "transfer-encoding", "upgrade"}  # fmt: skip


def check_entry(asked: ToolContext) -> None:
    """Raises `InvalidRequest` if the entry has fields or values that are not supported."""
    tool, where = asked.tool, asked.where
    for name, why in (
        ("connector_id", "OpenAI's connectors are not offered here; name a `server_url`."),
        ("tunnel_id", "OpenAI's tunnels are not offered here; name a `server_url`."),
        ("defer_loading", "Tools are not searched for here; leave `defer_loading` out."),
    ):
        if tool.get(name):
            raise UnsupportedField(why, param=f"{where}.{name}")
    if "direct" not in (tool.get("allowed_callers") or ["direct"]):
        raise UnsupportedField(
            "Here only the model itself calls tools: `allowed_callers` has `direct` in it.",
            param=f"{where}.allowed_callers",
        )
    others = [one for one in asked.body.get("tools") or () if one["type"] == "mcp"]
    if len(others) > SERVERS:
        raise InvalidRequest(f"`tools` names more than {SERVERS} MCP servers.", param="tools")
    if [one["server_label"] for one in others].count(tool["server_label"]) > 1:
        raise InvalidRequest(
            f"Two MCP servers have the label `{tool['server_label']}`.",
            param=f"{where}.server_label",
        )


def headers_of(asked: ToolContext) -> dict[str, str]:
    """Returns the HTTP headers of the entry, beside those of the MCP protocol itself. Raises
    `InvalidRequest` for a header that cannot be sent."""
    headers: dict[str, str] = dict(asked.tool.get("headers") or {})
    for name, value in headers.items():
        is_one = value.isprintable() and value.isascii() and name.isascii()
        if name.lower() in OWN_HEADERS or not is_one or not name.replace("-", "").isalnum():
            raise InvalidRequest(
                f"The header `{name[:80]}` cannot be sent.", param=f"{asked.where}.headers"
            )
    token = asked.tool.get("authorization")
    if token is None:
        return headers
    if any(name.lower() == "authorization" for name in headers):
        raise InvalidRequest(
            "Both `authorization` and a header of that name are given.",
            param=f"{asked.where}.authorization",
        )
    if not (token.isascii() and token.isprintable()):
        raise InvalidRequest("This is no token.", param=f"{asked.where}.authorization")
    return {**headers, "Authorization": f"Bearer {token}"}


def allows(allowed: Any, tool: Item) -> bool:
    """True if `allowed_tools` includes this tool."""
    if allowed is None:
        return True
    if isinstance(allowed, Mapping):
        return _matches(allowed, tool)
    return tool["name"] in allowed


def needs_approval(policy: Any, tool: Item) -> bool:
    """True if the policy requires approval; a tool that no filter of it matches needs approval."""
    if not isinstance(policy, Mapping):
        return bool(policy != "never")
    always, never = policy.get("always"), policy.get("never")
    if always is not None and _matches(always, tool):
        return True
    return never is None or not _matches(never, tool)


def _matches(wanted: Item, tool: Item) -> bool:
    """True if the filter matches the tool; an empty filter matches none."""
    names, read_only = wanted.get("tool_names"), wanted.get("read_only")
    if names is None and read_only is None:
        return False
    is_read_only = bool((tool.get("annotations") or {}).get("readOnlyHint"))
    return (names is None or tool["name"] in names) and (
        read_only is None or is_read_only == read_only
    )
