"""Fields inside messages that this server supports; others are refused by their paths (pure)."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

# `citations` of a text come from an earlier answer; only the model that reasoned reads `signature`.
_BLOCKS: dict[str, frozenset[str]] = {
    "text": frozenset({"text", "citations"}),
    "image": frozenset({"source"}),
    "document": frozenset({"source", "title", "context"}),
    "tool_use": frozenset({"id", "name", "input"}),
    "tool_result": frozenset({"tool_use_id", "content", "is_error"}),
    "thinking": frozenset({"thinking", "signature"}),
    "redacted_thinking": frozenset({"data"}),
}
_TOOL = frozenset(
    {"type", "name", "description", "input_schema", "strict", "input_examples"}
    | {"cache_control", "eager_input_streaming"}  # hints: inputs are always streamed
)
_OBJECTS = {
    "metadata": frozenset({"user_id"}),
    "thinking": frozenset({"type", "budget_tokens", "display"}),
    "tool_choice": frozenset({"type", "name", "disable_parallel_tool_use"}),
    "output_config": frozenset({"effort", "format"}),
    "context_management": frozenset({"edits"}),
}
# Edits without effect here: the chat template already leaves out old reasoning.
_NEUTRAL_EDITS = frozenset({"clear_thinking_20251015"})
# Values of other fields that change nothing.
_NEUTRAL: Mapping[str, Collection[Any]] = {
    "citations": [{"enabled": False}],
    "caller": [{"type": "direct"}],
    "allowed_callers": [["direct"]],
    "defer_loading": [False],
}


def check_fields(body: "api.CountAnthropicMessageTokensRequest") -> None:
    """Raises `UnsupportedField` with the path of a field in blocks, tools and options that would
    change the answer and is not supported."""
    fields: JsonMapping = body
    for name, known in _OBJECTS.items():
        _check(fields.get(name), known, name)
    form = (fields.get("output_config") or {}).get("format")
    _check(form, frozenset({"type", "schema"}), "output_config.format")
    for index, tool in enumerate(fields.get("tools") or ()):
        if tool.get("type") in (None, "custom"):  # others are refused by their type
            _check(tool, _TOOL, f"tools[{index}]")
    for index, edit in enumerate((fields.get("context_management") or {}).get("edits") or ()):
        _check_edit(edit, f"context_management.edits[{index}]")
    _check_blocks(fields.get("system"), "system")
    for index, message in enumerate(fields["messages"]):
        _check(message, frozenset({"role", "content"}), f"messages[{index}]")
        _check_blocks(message["content"], f"messages[{index}].content")


def _check_edit(edit: JsonMapping, path: str) -> None:
    if edit["type"] not in _NEUTRAL_EDITS:
        raise UnsupportedField(
            f"Edits of the type `{edit['type']}` are not supported; the client must shorten the "
            "messages itself.",
            param=f"{path}.type",
        )


def _check_blocks(blocks: str | Sequence[JsonMapping] | None, path: str) -> None:
    if blocks is None or isinstance(blocks, str):
        return
    for index, block in enumerate(blocks):
        where = f"{path}[{index}]"
        if known := _BLOCKS.get(block["type"]):
            _check(block, known | {"type", "cache_control"}, where)
        if block["type"] == "tool_result":
            _check_blocks(block.get("content"), f"{where}.content")
        elif block["type"] == "document" and block["source"]["type"] == "content":
            _check_blocks(block["source"]["content"], f"{where}.source.content")


def _check(fields: JsonMapping | None, known: frozenset[str], path: str) -> None:
    refuse_unsupported_fields(fields or {}, known, neutral=_NEUTRAL, path=path)
