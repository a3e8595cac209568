"""Bridge from chats and responses to Anthropic's Messages: the request body (pure)."""

from collections.abc import Iterator, Sequence
from typing import Any

from llm_backend import exact_json
from llm_backend.backends.base import Chat, Message
from llm_backend.backends.local.media import Content, Image, MediaPart
from llm_backend.controllers.relay.bridge.untranslatable import check_translatable
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

PATH = "/messages"

_SAME = ("temperature", "top_p", "top_k")
_SHARED_FIELDS = frozenset(
    {
        *_SAME, "model", "store", "metadata", "stream", "stream_options", "tools", "tool_choice",
        "parallel_tool_calls", "user", "safety_identifier",
        # as for local models, without effect
        "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
    }
)  # fmt: skip
_CHAT_FIELDS = _SHARED_FIELDS | {
    "messages", "functions", "function_call", "max_tokens", "max_completion_tokens", "stop",
    "reasoning_effort", "response_format",
}  # fmt: skip
_RESPONSE_FIELDS = _SHARED_FIELDS | {
    "input", "instructions", "conversation", "previous_response_id", "max_output_tokens",
    "max_tool_calls", "reasoning", "text", "include", "prompt",
}  # fmt: skip
_EFFORTS = {"minimal": "low"}  # the others have the same names
_DATA_SCHEME = "data:"


def as_message(body: JsonMapping, chat: Chat, model: str, *, max_tokens: int) -> JsonObject:
    """Returns the body of the message that answers a chat or a response with this body. Its answer
    has at most `max_tokens`, unless the body sets a limit.

    Raises `UnsupportedField` for a field or value that messages lack.
    """
    is_chat = "messages" in body
    supported = _CHAT_FIELDS if is_chat else _RESPONSE_FIELDS
    check_translatable(body, supported, other="Anthropic's messages")
    system, messages = _messages(chat.messages)
    fields: JsonObject = {
        "model": model,
        "max_tokens": chat.limits.max_tokens or max_tokens,
        "messages": messages,
        "stream": True,
        **{name: body[name] for name in _SAME if body.get(name) is not None},
        **_tools(chat),
        **_reasoning(chat.reasoning_effort, _schema(body)),
    }
    if system:
        fields["system"] = system
    if chat.limits.stop:
        fields["stop_sequences"] = list(chat.limits.stop)
    if user := body.get("safety_identifier") or body.get("user"):
        fields["metadata"] = {"user_id": user}
    return fields


def _messages(messages: Sequence[Message]) -> tuple[str, list[JsonObject]]:
    """Returns the system prompt, joined from the leading system messages, and the other messages.
    Empty messages are left out, because the upstream refuses them. Consecutive results of tools
    form one message."""
    system: list[str] = []
    translated: list[JsonObject] = []
    results: list[JsonObject] = []  # content of the latest message, if it consists of results
    for index, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if message.get("name") and role != "tool":
            raise UnsupportedField(
                "The upstream's API (Messages) has no names in messages; leave it out.",
                param=f"messages[{index}].name",
            )
        if role == "tool":
            if not results:
                translated.append({"role": "user", "content": results})
            results.append(_result(message["tool_call_id"], content))
            continue
        results = []
        if role == "system" and not translated:
            system += _system_texts(content)
        elif blocks := list(_assistant(message) if role == "assistant" else _blocks(content)):
            translated.append({"role": role, "content": blocks})
    return "\n\n".join(system), translated


def _system_texts(content: Content) -> Iterator[str]:
    for piece in _pieces(content):
        if not isinstance(piece, str):
            raise UnsupportedField(
                "The upstream's API (Messages) supports only text in system messages.",
                param=piece.param,
            )
        yield piece


def _result(call_id: str, content: Content) -> JsonObject:
    return {"type": "tool_result", "tool_use_id": call_id, "content": list(_blocks(content))}


def _assistant(message: Message) -> Iterator[JsonObject]:
    """Yields the blocks of an answer; a refusal becomes a text. Reasoning is left out: Anthropic
    accepts only reasoning that it has signed."""
    yield from _blocks(message.get("content"))
    yield from _blocks(message.get("refusal"))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield {
            "type": "tool_use",
            "id": call["id"],
            "name": function["name"],
            "input": _input(function["arguments"]),
        }


def _input(arguments: str) -> JsonObject:
    parsed = exact_json.parse_object(arguments or "{}")
    if parsed is None:
        raise InvalidRequest(
            "The `arguments` of a tool call must be a JSON object for this upstream.",
            param="messages",
        )
    return parsed


def _blocks(content: Content) -> Iterator[JsonObject]:
    for piece in _pieces(content):
        if isinstance(piece, str):
            yield {"type": "text", "text": piece}
        else:
            yield {"type": "image", "source": _source(piece)}


def _pieces(content: Content) -> list[str | MediaPart]:
    """Returns the parts of a content without empty texts, which the upstream refuses."""
    pieces = [content] if content is None or isinstance(content, str) else content
    return [piece for piece in pieces if piece]


def _source(file: MediaPart) -> JsonObject:
    if not isinstance(file, Image):
        raise UnsupportedField("The upstream's API (Messages) supports no audio.", param=file.param)
    if not file.url.startswith(_DATA_SCHEME):
        return {"type": "url", "url": file.url}
    head, _, data = file.url.removeprefix(_DATA_SCHEME).partition(",")
    return {"type": "base64", "media_type": head.partition(";")[0], "data": data}


def _tools(chat: Chat) -> JsonObject:
    if not chat.tools:
        return _called_tools(chat.messages)
    names, functions = chat.callable_names, [tool["function"] for tool in chat.tools]
    permitted = [one for one in functions if names is None or one["name"] in names]
    fields: JsonObject = {"tools": [_tool(function) for function in permitted]}
    choice: JsonObject = {"type": "auto"}
    if chat.must_call and names is not None and len(names) == 1:
        choice = {"type": "tool", "name": next(iter(names))}
    elif chat.must_call:
        choice = {"type": "any"}
    if not chat.parallel_tool_calls:
        choice["disable_parallel_tool_use"] = True
    return fields | ({"tool_choice": choice} if choice != {"type": "auto"} else {})


def _called_tools(messages: Sequence[Message]) -> JsonObject:
    """Returns the tools that were called earlier. None of them may be called now, but the upstream
    refuses calls of tools that it does not know."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    names = dict.fromkeys(call["function"]["name"] for call in calls)
    if not names:
        return {}
    return {"tools": [_tool({"name": name}) for name in names], "tool_choice": {"type": "none"}}


def _tool(function: JsonMapping) -> JsonObject:
    tool: JsonObject = {
        "name": function["name"],
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    for name in ("description", "strict"):
        if function.get(name) is not None:
            tool[name] = function[name]
    return tool


def _schema(body: JsonMapping) -> Any:
    """Returns the schema of the answer, if the body has one. Raises `UnsupportedField` for JSON
    without a schema."""
    text = (body.get("text") or {}).get("format")
    wanted: JsonMapping = body.get("response_format") or text or {"type": "text"}
    kind = wanted["type"]
    if kind == "text":
        return None
    if kind != "json_schema":
        raise UnsupportedField(
            "The upstream's API (Messages) needs a JSON schema: `json_object` is not supported.",
            param="response_format" if "response_format" in body else "text.format",
        )
    schema = wanted.get("json_schema", wanted).get("schema")
    if schema is None:
        raise UnsupportedField(
            "The upstream's API (Messages) needs a schema in the format.",
            param="response_format.json_schema.schema"
            if "response_format" in body
            else "text.format.schema",
        )
    return schema


def _reasoning(effort: str | None, schema: Any) -> JsonObject:
    fields: JsonObject = {}
    if effort == "none":
        fields["thinking"] = {"type": "disabled"}
    elif effort is not None:
        fields["output_config"] = {"effort": _EFFORTS.get(effort, effort)}
    if schema is not None:
        form = {"type": "json_schema", "schema": schema}
        fields["output_config"] = {**fields.get("output_config", {}), "format": form}
    return fields
