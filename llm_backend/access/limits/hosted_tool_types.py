"""Hosted tools of a request, and the permission that each type of tool needs (pure)."""

from llm_backend.errors import Forbidden
from llm_backend.json_types import JsonMapping

# The prefix of a tool's type -> the permission that the tool needs.
_PERMISSIONS = {
    "file_search": "file_search",
    "web_search": "web_search",  # also web_search_preview, and types with a date
    "image_generation": "image_generation",
    "mcp": "mcp",
    "code_interpreter": "code_interpreter",
}

_WITHIN = ("", "session", "response")


def check_tools(body: JsonMapping, forbidden: frozenset[str]) -> None:
    """Raises `Forbidden` for a tool that the caller's project may not use. Looks at the tools of
    the request, and of the session or the response that the request creates."""
    if "web_search" in forbidden and body.get("web_search_options") is not None:
        raise _not_allowed("web_search", "web_search_options")
    for within in _WITHIN:
        holder = body.get(within) if within else body
        tools = holder.get("tools") if isinstance(holder, dict) else None
        for index, tool in enumerate(tools if isinstance(tools, list) else ()):
            type = tool.get("type") if isinstance(tool, dict) else None
            permission = _permission(type) if isinstance(type, str) else None
            if permission in forbidden:
                where = f"{within}.tools[{index}]" if within else f"tools[{index}]"
                raise _not_allowed(permission, where)


def _not_allowed(permission: str | None, where: str) -> Forbidden:
    return Forbidden(f"The project may not use the hosted tool `{permission}`.", param=where)


def _permission(type: str) -> str | None:
    for beginning, permission in _PERMISSIONS.items():
        if type.startswith(beginning):
            return permission
    return None
