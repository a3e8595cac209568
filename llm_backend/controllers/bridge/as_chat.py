"""A response's question put as a chat completion, and its chunks as deltas (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_backend.backends.base import Chat, ChatDelta, ToolCall, Usage
from llm_backend.controllers.bridge.content import chat_content
from llm_backend.controllers.bridge.refusals import refuse_uncarried

__all__ = ["PATH", "ChunkReader", "as_chat"]

Json = Mapping[str, Any]

PATH = "/chat/completions"

_SAME = (
    "temperature", "top_p", "service_tier", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
_CARRIED = frozenset(
    {
        *_SAME, "model", "input", "instructions", "conversation", "previous_response_id", "store",
        "metadata", "stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls",
        "max_output_tokens", "max_tool_calls", "reasoning", "text", "include", "prompt",
    }
)  # fmt: skip
_MESSAGE = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")


def as_chat(body: Json, chat: Chat, model: str) -> dict[str, Any]:
    """The body of the chat completion that answers a response with this body.

    Raises `UnsupportedField` for what chat completions have no word for.
    """
    refuse_uncarried(body, _CARRIED, other="chat completions")
    asked: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in chat.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: body[name] for name in _SAME if body.get(name) is not None},
        **_tools(chat),
        **_format((body.get("text") or {}).get("format") or {}),
    }
    if chat.limits.max_tokens is not None:
        asked["max_completion_tokens"] = chat.limits.max_tokens
    if chat.reasoning_effort is not None:
        asked["reasoning_effort"] = chat.reasoning_effort
    return asked


class ChunkReader:
    """Reads the chunks of one chat completion; `usage` is told by the last one."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_ended = False
        self.ends_by_done = True

    def take(self, event: Json) -> Iterator[ChatDelta]:
        """What a chunk says."""
        for choice in event.get("choices") or ():
            yield _delta(choice)
            self.is_ended = self.is_ended or choice.get("finish_reason") is not None
        if usage := event.get("usage"):
            self.usage = _usage(usage)


def _message(message: Json) -> dict[str, Any]:
    said = {name: message[name] for name in _MESSAGE if name in message}
    return {**said, "content": chat_content(said["content"])} if "content" in said else said


def _tools(chat: Chat) -> dict[str, Any]:
    if not chat.tools:
        return {}
    said: dict[str, Any] = {"tools": list(chat.tools)}
    if not chat.parallel_tool_calls:
        said["parallel_tool_calls"] = False
    if choice := _tool_choice(chat):
        said["tool_choice"] = choice
    return said


def _tool_choice(chat: Chat) -> Any:
    names = sorted(chat.callable_names or ())
    if chat.callable_names is None:
        return "required" if chat.must_call else None
    chosen = [{"type": "function", "function": {"name": name}} for name in names]
    if chat.must_call and len(names) == 1:
        return chosen[0]
    mode = "required" if chat.must_call else "auto"
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": chosen}}


def _format(given: Json) -> dict[str, Any]:
    kind = given.get("type", "text")
    if kind == "json_schema":
        schema = {name: value for name, value in given.items() if name != "type"}
        return {"response_format": {"type": kind, "json_schema": schema}}
    return {} if kind == "text" else {"response_format": {"type": kind}}


def _delta(choice: Json) -> ChatDelta:
    delta = choice.get("delta") or {}
    return ChatDelta(
        choice=choice.get("index") or 0,
        reasoning=delta.get("reasoning_content") or delta.get("reasoning") or "",
        content=delta.get("content") or delta.get("refusal") or "",
        tool_calls=_calls(delta.get("tool_calls") or ()),
        finish_reason=choice.get("finish_reason"),
    )


def _calls(calls: Sequence[Json]) -> list[ToolCall]:
    return [
        ToolCall(
            index=call.get("index") or 0,
            id=call.get("id"),
            name=(call.get("function") or {}).get("name"),
            arguments=(call.get("function") or {}).get("arguments") or "",
        )
        for call in calls
    ]


def _usage(usage: Json) -> Usage:
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=prompt.get("cached_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )
