"""Translation of bodies of Ollama's chats and generations to bodies of chat completions (pure)."""

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from llm_backend import exact_json
from llm_backend.controllers.generation.field_paths import ContentPath
from llm_backend.controllers.ollama.options import (
    GENERATION,
    OPTIONS,
    chat_fields,
    check_ollama_fields,
)
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject, without_nulls

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_CHAT = GENERATION | {"messages", "tools"}
_COMPLETION = GENERATION | {"prompt", "suffix", "system", "raw", "images"}
_MEDIA_TYPES = {"/9j/": "jpeg", "R0lG": "gif", "UklG": "webp"}  # by the first letters of base64


def chat_body_of(body: "api.CreateOllamaChatRequest") -> "api.CreateChatCompletionRequest":
    """Returns the body of the chat completion that answers a chat of Ollama's.

    Raises `UnsupportedField` or `InvalidRequest` with the path of the field.
    """
    check_ollama_fields(body, _CHAT)
    chat: JsonObject = {
        **chat_fields(body),
        "messages": list(_messages(cast("Sequence[JsonMapping]", body.get("messages") or ()))),
    }
    if body.get("tools"):
        chat["tools"] = [_tool(tool) for tool in cast("Sequence[JsonMapping]", body["tools"])]
    return cast("api.CreateChatCompletionRequest", chat)


def prompt_chat_body_of(
    body: "api.CreateOllamaCompletionRequest",
) -> "api.CreateChatCompletionRequest":
    """Returns the body of the chat completion that answers a prompt. Raises as `chat_body_of`."""
    check_completion(body)
    messages: list[JsonObject] = []
    if body.get("system"):
        messages.append({"role": "system", "content": body["system"]})
    messages.append(_user({"content": body.get("prompt"), "images": body.get("images")}))
    chat = {**chat_fields(body), "messages": messages}
    return cast("api.CreateChatCompletionRequest", chat)


def field_of(body: JsonMapping, path: str) -> str:
    """Returns the path of the field in a body of Ollama's API for its path in the chat."""
    path = re.sub(r"^response_format(\.json_schema\.schema)?", "format", path)
    path = re.sub(rf"^({'|'.join(OPTIONS)})\b", r"options.\1", path)
    path = re.sub(r"^max_(completion_)?tokens", "options.num_predict", path)
    path = re.sub(r"^reasoning_effort\b", "think", path)
    found = ContentPath.parse(path)
    if found is None:
        return path
    index, part = found.index, found.part
    messages = body.get("messages")
    if messages is not None and index >= len(messages):  # the server has added messages
        return path
    message, where = (body, "") if messages is None else (messages[index], f"messages[{index}].")
    has_text = bool(message.get("content") or message.get("prompt"))
    if part is None or part < has_text or not message.get("images"):
        return path
    return f"{where}images[{part - has_text}]"


def check_completion(body: "api.CreateOllamaCompletionRequest") -> None:
    """Raises `UnsupportedField` for a field of a generation that is not supported."""
    check_ollama_fields(body, _COMPLETION)


def _messages(messages: Sequence[JsonMapping]) -> Iterator[JsonObject]:
    """Yields the messages of a chat. Each result of a tool gets the id of the call that it answers,
    because in Ollama's API it may name the function alone, or nothing."""
    calls = _OpenCalls(())  # of the latest assistant message
    for index, message in enumerate(messages):
        role = message["role"]
        if message.get("images") and role != "user":
            raise UnsupportedField(
                "Images are shown to a model in messages of the user only.",
                param=f"messages[{index}].images",
            )
        if role == "tool":
            yield _tool_result(message, calls, f"messages[{index}]")
        elif role == "assistant":
            translated = _assistant(message, index)
            calls = _OpenCalls(translated.get("tool_calls") or ())
            yield translated
        elif role == "user":
            yield _user(message)
        else:
            yield {"role": role, "content": message.get("content") or ""}


def _user(message: JsonMapping) -> JsonObject:
    text = message.get("content") or ""
    if not message.get("images"):
        return {"role": "user", "content": text}
    parts: list[JsonObject] = [{"type": "text", "text": text}] if text else []
    parts += [_image(data) for data in message["images"]]
    return {"role": "user", "content": parts}


def _image(data: str) -> JsonObject:
    kind = _MEDIA_TYPES.get(data[:4], "png")
    url = data if data.startswith("data:") else f"data:image/{kind};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _assistant(message: JsonMapping, index: int) -> JsonObject:
    translated: JsonObject = {"role": "assistant", "content": message.get("content") or ""}
    if message.get("thinking"):
        translated["reasoning_content"] = message["thinking"]
    if calls := message.get("tool_calls"):
        translated["tool_calls"] = [
            _call(call, f"call_{index}_{position}") for position, call in enumerate(calls)
        ]
    return translated


def _call(call: JsonMapping, default_id: str) -> JsonObject:
    function = {
        "name": call["function"]["name"],
        "arguments": exact_json.dumps(call["function"]["arguments"]).decode(),
    }
    return {"id": call.get("id") or default_id, "type": "function", "function": function}


class _OpenCalls:
    """Tool calls without a result yet."""

    def __init__(self, calls: Sequence[JsonObject]) -> None:
        self._calls = dict(enumerate(calls))
        self._in_order = deque(self._calls)
        self._by_id: defaultdict[str, deque[int]] = defaultdict(deque)
        self._by_name: defaultdict[str, deque[int]] = defaultdict(deque)
        for position, call in self._calls.items():
            self._by_id[call["id"]].append(position)
            self._by_name[call["function"]["name"]].append(position)

    def pop(self, id: str | None, name: str | None) -> JsonObject | None:
        """Takes out the first call with this id, else with this name, else of any name; returns
        None if there is none."""
        positions = self._by_id[id] if id else self._by_name[name] if name else self._in_order
        while positions:
            if call := self._calls.pop(positions.popleft(), None):
                return call
        return None


def _tool_result(message: JsonMapping, calls: _OpenCalls, path: str) -> JsonObject:
    call = calls.pop(message.get("tool_call_id"), message.get("tool_name"))
    if call is None:
        raise InvalidRequest(
            "A message of the role `tool` must answer one of the `tool_calls` of the latest "
            "message of the assistant.",
            param=path,
        )
    content = message.get("content") or ""
    return {"role": "tool", "tool_call_id": call["id"], "content": content}


def _tool(tool: JsonMapping) -> JsonObject:
    return {"type": "function", "function": without_nulls(tool["function"])}
