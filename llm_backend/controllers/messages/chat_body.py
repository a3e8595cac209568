"""Translates bodies of Anthropic's messages to bodies of chat completions (pure).

Hints, which have no effect here, are left out: `cache_control`, `service_tier`, ids of users and
workspaces. Any other field without a counterpart is refused by its path; `known_fields.py` refuses
those within messages, tools and options.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from llm_backend import exact_json
from llm_backend.controllers.generation.field_paths import ContentPath
from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_SAME = ("model", "temperature", "top_p", "top_k", "stream")
_HINTS = frozenset(
    {"cache_control", "service_tier", "inference_geo", "user_profile_id", "workspace_id", "speed"}
    | {"context_management"}  # `known_fields.py` accepts only hints in this field
)
_TRANSLATED = frozenset(
    {*_SAME, "max_tokens", "messages", "system", "metadata", "stop_sequences", "thinking"}
    | {"tool_choice", "tools", "output_config"}
)
_EFFORTS = {"xhigh": "high", "max": "high"}  # other efforts have the same names
_USER_CHARACTERS = 64  # of a user's id at OpenAI; Claude Code sends longer ones
# Chats have effort levels instead of token budgets: the level for budgets below each number.
_BUDGET_EFFORTS = ((4_096, "low"), (16_384, "medium"))
_FIELDS = (  # patterns of a chat's fields, and the names that the fields have in a message
    (r"response_format\.json_schema\.schema", "output_config.format.schema"),
    (r"(tools\[\d+\])\.function\.parameters", r"\1.input_schema"),
    (r"(tools\[\d+\])\.function\b", r"\1"),
    (r"tool_choice\.function\b", "tool_choice"),
    (r"stop\b", "stop_sequences"),
    (r"max_completion_tokens\b", "max_tokens"),
    (r"reasoning_effort\b", "output_config.effort"),
    (r"user\b", "metadata.user_id"),
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_body_of(body: "api.CreateAnthropicMessageRequest") -> "api.CreateChatCompletionRequest":
    """Returns the body of a chat completion for the body of a message. Raises `UnsupportedField` or
    `InvalidRequest` with the path of the field."""
    fields: JsonMapping = body
    refuse_unsupported_fields(fields, _TRANSLATED | _HINTS)
    chat: JsonObject = {name: fields[name] for name in _SAME if fields.get(name) is not None}
    chat["messages"] = [message for message, _ in _chat_messages(body)]
    if fields.get("max_tokens") is not None:
        chat["max_completion_tokens"] = fields["max_tokens"]
    if stops := body.get("stop_sequences"):
        chat["stop"] = stops
    if user := (body.get("metadata") or {}).get("user_id"):
        chat["user"] = _short_id(user)
    chat |= _tools(body) | _output(body.get("output_config") or {})
    return cast("api.CreateChatCompletionRequest", chat)


def _short_id(user: str) -> str:
    """Returns the id of a user; of a long one its hash, which identifies the same user."""
    return user if len(user) <= _USER_CHARACTERS else hashlib.sha256(user.encode()).hexdigest()


def field_of(body: "api.CountAnthropicMessageTokensRequest", path: str) -> str:
    """Returns the path of the field in the body of a message for its path in the chat."""
    for pattern, name in _FIELDS:
        path = re.sub(rf"^{pattern}", name, path)
    found = ContentPath.parse(path)
    if found is None:
        return path
    sources = [source for _, source in _chat_messages(body)]
    if found.index >= len(sources):  # the server has added messages
        return path
    source, part = sources[found.index], found.part
    return source.path if part is None or part >= len(source.parts) else source.parts[part]


def thinks(body: "api.CountAnthropicMessageTokensRequest") -> bool:
    """Returns True if the client asks the model to reason."""
    thinking: JsonMapping = body.get("thinking") or {"type": "disabled"}
    return bool(thinking["type"] != "disabled")


def shows_thinking(body: "api.CreateAnthropicMessageRequest") -> bool:
    """Returns True if the client asks for the reasoning in the answer."""
    thinking: JsonMapping = body.get("thinking") or {}
    return thinks(body) and thinking.get("display") != "omitted"


def budget_effort(body: "api.CountAnthropicMessageTokensRequest") -> str | None:
    """Returns the effort that corresponds to the reasoning budget; None if there is no budget, or
    if the body names an effort."""
    thinking: JsonMapping = body.get("thinking") or {}
    budget_tokens = thinking.get("budget_tokens")
    config: JsonMapping = body.get("output_config") or {}
    if not thinks(body) or budget_tokens is None or config.get("effort") is not None:
        return None
    return next((effort for below, effort in _BUDGET_EFFORTS if budget_tokens < below), "high")


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Paths of what became a chat's message, and of what became the parts of its content."""

    path: str
    parts: Sequence[str] = ()


_Translated: TypeAlias = tuple[JsonObject, _Source]


def _chat_messages(body: "api.CountAnthropicMessageTokensRequest") -> Iterator[_Translated]:
    yield from _system(body.get("system"), "system")
    yield from _messages(body["messages"])


def _system(system: Any, path: str) -> Iterator[_Translated]:
    if not system:
        return
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    for index, block in enumerate(blocks):
        if block["type"] != "text":
            raise UnsupportedField(
                f"Blocks of the type `{block['type']}` are not supported in a system prompt.",
                param=f"{path}[{index}]",
            )
    text = "\n\n".join(block["text"] for block in blocks)
    yield {"role": "system", "content": text}, _Source(path=path)


def _messages(messages: Sequence[JsonMapping]) -> Iterator[_Translated]:
    for index, message in enumerate(messages):
        content, path = message["content"], f"messages[{index}].content"
        is_last_answer = message["role"] == "assistant" and index == len(messages) - 1
        if not content and not is_last_answer:
            raise InvalidRequest("A message must have content.", param=path)
        if isinstance(content, str):
            yield {"role": message["role"], "content": content}, _Source(path=path)
        elif message["role"] == "assistant":
            yield _assistant(content, path), _Source(path=path)
        elif message["role"] == "system":
            yield from _system(content, path)
        else:
            yield from _user(content, path)


def _user(blocks: Sequence[JsonMapping], path: str) -> Iterator[_Translated]:
    """Yields a tool message for each tool result, then a user message with the other blocks."""
    parts: list[JsonObject] = []
    sources: list[str] = []
    for index, block in enumerate(blocks):
        where = f"{path}[{index}]"
        if block["type"] != "tool_result":
            parts += _parts(block, where)
            sources += [where] * (len(parts) - len(sources))
            continue
        result = block.get("content") or ""
        contents = [{"type": "text", "text": result}] if isinstance(result, str) else result
        pieces = [part for one in contents for part in _parts(one, f"{where}.content")]
        text = "\n".join(part["text"] for part in pieces if part["type"] == "text")
        message = {
            "role": "tool",
            "tool_call_id": block["tool_use_id"],
            "content": f"Error: {text}" if block.get("is_error") else text,
        }
        yield message, _Source(path=where)
        # Tool messages hold only text, so images of a result go to the user message.
        parts += [part for part in pieces if part["type"] != "text"]
        sources += [where] * (len(parts) - len(sources))
    if parts:
        yield {"role": "user", "content": parts}, _Source(path=path, parts=sources)


def _parts(block: JsonMapping, path: str) -> Iterator[JsonObject]:
    """Yields the content parts of a chat message for a block of a user message."""
    kind = block["type"]
    if kind == "text":
        yield {"type": "text", "text": block["text"]}
    elif kind == "image":
        yield {"type": "image_url", "image_url": {"url": _url(block["source"], path)}}
    elif kind == "document":
        yield from _document(block, path)
    else:
        raise UnsupportedField(f"Blocks of the type `{kind}` are not supported.", param=path)


def _document(block: JsonMapping, path: str) -> Iterator[JsonObject]:
    source, title = block["source"], block.get("title")
    if block.get("context"):
        yield {"type": "text", "text": block["context"]}
    if source["type"] == "text":
        text = source["data"]
        yield {"type": "text", "text": f"{title}\n\n{text}" if title else text}
    elif source["type"] == "content":
        content = source["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for one in blocks:
            yield from _parts(one, f"{path}.source.content")
    else:
        data = _url(source, path)
        yield {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}


def _url(source: JsonMapping, path: str) -> str:
    if source["type"] == "base64":
        return f"data:{source['media_type']};base64,{source['data']}"
    if source["type"] == "url":
        return str(source["url"])
    raise UnsupportedField(
        f"Sources of the type `{source['type']}` are not supported; send the data as base64.",
        param=f"{path}.source",
    )


def _assistant(blocks: Sequence[JsonMapping], path: str) -> JsonObject:
    text, reasoning, calls = "", "", []
    for index, block in enumerate(blocks):
        kind = block["type"]
        if kind == "text":
            text += block["text"]
        elif kind == "thinking":
            reasoning += block["thinking"]
        elif kind == "tool_use":
            function = {
                "name": block["name"],
                "arguments": exact_json.dumps(block["input"]).decode(),
            }
            calls.append({"id": block["id"], "type": "function", "function": function})
        elif kind != "redacted_thinking":  # which only the model that wrote it can read
            raise UnsupportedField(
                f"Blocks of the type `{kind}` are not supported here.", param=f"{path}[{index}]"
            )
    message: JsonObject = {"role": "assistant", "content": text or None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    elif not text:
        message["content"] = ""
    return message


def _tools(body: "api.CreateAnthropicMessageRequest") -> JsonObject:
    fields: JsonMapping = body
    tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(fields.get("tools") or ())]
    choice = fields.get("tool_choice")
    if not tools:
        if choice is not None and choice["type"] != "none":
            raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
        return {}
    chat: JsonObject = {"tools": tools}
    if choice is None:
        return chat
    if choice["type"] == "tool":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    else:
        chat["tool_choice"] = _CHOICES[choice["type"]]
    if choice.get("disable_parallel_tool_use"):
        chat["parallel_tool_calls"] = False
    return chat


def _tool(tool: JsonMapping, path: str) -> JsonObject:
    if tool.get("type", "custom") not in ("custom", None):
        raise UnsupportedField(
            f"Tools of the type `{tool['type']}` run at Anthropic; give a tool with its own "
            "`input_schema`.",
            param=f"{path}.type",
        )
    if "input_schema" not in tool:
        raise InvalidRequest(f"`{path}.input_schema` is missing.", param=f"{path}.input_schema")
    schema: JsonObject = {**tool["input_schema"]}
    if schema.get("type") == "object":
        schema.setdefault("properties", {})  # OpenAI requires them, tools of MCP lack them
    if examples := tool.get("input_examples"):
        schema["examples"] = examples
    function: JsonObject = {"name": tool["name"], "parameters": schema}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]
    return {"type": "function", "function": function}


def _output(config: JsonMapping) -> JsonObject:
    fields: JsonObject = {}
    if effort := config.get("effort"):
        fields["reasoning_effort"] = _EFFORTS.get(effort, effort)
    if form := config.get("format"):
        schema = {"name": "output", "schema": form["schema"], "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields
