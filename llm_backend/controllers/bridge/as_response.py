"""A chat put as a response, and the response's events as deltas (pure)."""

from collections.abc import Iterator, Mapping
from typing import Any

from llm_backend.backends.base import Chat, ChatDelta, Message, ToolCall, Usage
from llm_backend.controllers.bridge.content import response_content
from llm_backend.controllers.bridge.refusals import refuse_uncarried
from llm_backend.errors import ApiError, RateLimited, UpstreamFailed

__all__ = ["PATH", "EventReader", "as_response"]

Json = Mapping[str, Any]

PATH = "/responses"

_SAME = (
    "temperature", "top_p", "service_tier", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip
_CARRIED = frozenset(
    {
        *_SAME, "model", "messages", "store", "metadata", "stream", "stream_options", "tools",
        "tool_choice", "parallel_tool_calls", "max_tokens", "max_completion_tokens",
        "reasoning_effort", "response_format",
    }
)  # fmt: skip
_REASONING = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")
_CONTENT = ("response.output_text.delta", "response.refusal.delta")


def as_response(body: Json, chat: Chat, model: str) -> dict[str, Any]:
    """The body of the response that answers a chat with this body; the upstream keeps nothing.

    Raises `UnsupportedField` for what responses have no word for.
    """
    refuse_uncarried(body, _CARRIED, other="responses")
    asked: dict[str, Any] = {
        "model": model,
        "input": [item for message in chat.messages for item in _items(message)],
        "stream": True,
        "store": False,
        **{name: body[name] for name in _SAME if body.get(name) is not None},
        **_tools(chat),
        **_format(body.get("response_format") or {}),
    }
    if chat.limits.max_tokens is not None:
        asked["max_output_tokens"] = chat.limits.max_tokens
    if chat.reasoning_effort is not None:
        asked["reasoning"] = {"effort": chat.reasoning_effort}
    return asked


class EventReader:
    """Reads the events of one response; `usage` is told by the last one."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_ended = False
        self.ends_by_done = False
        self._calls: dict[int, int] = {}  # a call's place among the output -> among the calls

    def take(self, event: Json) -> Iterator[ChatDelta]:
        """What an event says. Raises the error that one tells."""
        kind = event.get("type")
        if kind in _CONTENT:
            yield ChatDelta(choice=0, content=event.get("delta") or "")
        elif kind in _REASONING:
            yield ChatDelta(choice=0, reasoning=event.get("delta") or "")
        elif kind == "response.output_item.added":
            yield from self._begun(event)
        elif kind == "response.function_call_arguments.delta":
            index = self._calls[event["output_index"]]
            call = ToolCall(index=index, arguments=event.get("delta") or "")
            yield ChatDelta(choice=0, tool_calls=[call])
        elif kind in ("response.completed", "response.incomplete"):
            yield self._ended(event["response"])
        elif kind in ("response.failed", "error"):
            raise _failure(event)

    def _begun(self, event: Json) -> Iterator[ChatDelta]:
        item = event["item"]
        if item["type"] in ("message", "reasoning"):
            return
        if item["type"] != "function_call":
            raise UpstreamFailed(
                f"The upstream answered with a `{item['type']}`, which no chat has."
            )
        index = self._calls.setdefault(event["output_index"], len(self._calls))
        yield ChatDelta(
            choice=0, tool_calls=[ToolCall(index=index, id=item["call_id"], name=item["name"])]
        )

    def _ended(self, response: Json) -> ChatDelta:
        self.is_ended = True
        self.usage = _usage(response.get("usage") or {})
        return ChatDelta(choice=0, finish_reason=self._reason(response))

    def _reason(self, response: Json) -> str:
        why = (response.get("incomplete_details") or {}).get("reason")
        if why == "content_filter":
            return "content_filter"
        if response.get("status") == "incomplete":
            return "length"
        return "tool_calls" if self._calls else "stop"


def _items(message: Message) -> Iterator[dict[str, Any]]:
    """The input items that a message is."""
    if message["role"] == "tool":
        output = response_content(message.get("content")) or ""
        call_id = message["tool_call_id"]
        yield {"type": "function_call_output", "call_id": call_id, "output": output}
        return
    if message.get("content") is not None:
        yield {"role": message["role"], "content": response_content(message["content"])}
    for call in message.get("tool_calls") or ():
        yield {"type": "function_call", "call_id": call["id"], **call["function"]}


def _tools(chat: Chat) -> dict[str, Any]:
    if not chat.tools:
        return {}
    tools = [_tool(tool["function"]) for tool in chat.tools]
    said = {"tools": tools, "parallel_tool_calls": chat.parallel_tool_calls}
    names = sorted(chat.callable_names or ())
    chosen = [{"type": "function", "name": name} for name in names]
    mode = "required" if chat.must_call else "auto"
    if chat.callable_names is None:
        return {**said, "tool_choice": mode}
    if chat.must_call and len(names) == 1:
        return {**said, "tool_choice": chosen[0]}
    return {**said, "tool_choice": {"type": "allowed_tools", "mode": mode, "tools": chosen}}


def _tool(function: Json) -> dict[str, Any]:
    return {
        "type": "function",
        "name": function["name"],
        "parameters": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": bool(function.get("strict")),  # responses are strict unless told
        **({"description": function["description"]} if function.get("description") else {}),
    }


def _format(given: Json) -> dict[str, Any]:
    kind = given.get("type", "text")
    if kind == "json_schema":
        return {"text": {"format": {"type": kind, **given["json_schema"]}}}
    return {} if kind == "text" else {"text": {"format": {"type": kind}}}


def _usage(usage: Json) -> Usage:
    return Usage(
        prompt_tokens=usage.get("input_tokens") or 0,
        completion_tokens=usage.get("output_tokens") or 0,
        cached_tokens=(usage.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _failure(event: Json) -> ApiError:
    response = event.get("response") or {}
    error = response.get("error") or event.get("error") or event
    message = str(error.get("message") or "The upstream failed in the middle of its answer.")
    kind = RateLimited if error.get("code") == "rate_limit_exceeded" else UpstreamFailed
    return kind(message)
