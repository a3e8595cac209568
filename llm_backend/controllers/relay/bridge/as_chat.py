"""Bridge from responses to chat completions: translates the request's body, and chunks to deltas
(pure)."""

import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from llm_backend.backends.base import Chat, ChatDelta, Message, ToolCall, Usage
from llm_backend.backends.local.media import MediaPart
from llm_backend.controllers.relay.bridge.content import chat_content
from llm_backend.controllers.relay.bridge.event_fields import (
    error_in_event,
    number,
    object_in,
    objects_in,
    required_text,
    text,
)
from llm_backend.controllers.relay.bridge.untranslatable import check_translatable
from llm_backend.controllers.response_items.items import LOGPROBS
from llm_backend.errors import ApiError, UnsupportedField, UpstreamFailed
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PATH = "/chat/completions"
SHOWN_LATER = "The image is in the next message of the user."

_SAME_FIELDS = (
    "temperature", "top_p", "presence_penalty", "frequency_penalty", "service_tier", "user",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
)  # fmt: skip
_TRANSLATED = frozenset(
    {
        *_SAME_FIELDS, "model", "input", "instructions", "conversation", "previous_response_id",
        "store", "metadata", "stream", "stream_options", "tools", "tool_choice",
        "parallel_tool_calls", "max_output_tokens", "max_tool_calls", "reasoning", "text",
        "include", "prompt",
    }
)  # fmt: skip
_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_WHOLE = _FINISH_REASONS - {"length", "content_filter"}  # those of calls that were not cut off
_MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "refusal")


def as_chat(
    body: "api.CreateResponse", chat: Chat, model: str
) -> "api.CreateChatCompletionRequest":
    """Returns the body of the chat completion that answers a response with this body.

    Raises `UnsupportedField` for fields that chat completions lack.
    """
    check_translatable(body, _TRANSLATED, other="chat completions")
    if LOGPROBS in (body.get("include") or ()):
        raise UnsupportedField(
            f"`{body['model']}` is reached through chat completions, whose log probabilities are "
            f"not translated; leave `{LOGPROBS}` out.",
            param="include",
        )
    text_options = body.get("text") or {}
    fields: JsonMapping = body
    rest: JsonObject = {
        "messages": list(_messages([one for one in chat.messages if not _is_empty(one)])),
        **{name: fields[name] for name in _SAME_FIELDS if fields.get(name) is not None},
        **_tools(chat),
        **_format(text_options.get("format") or {"type": "text"}),
    }
    chat_body: api.CreateChatCompletionRequest = {
        **cast("api.CreateChatCompletionRequest", rest),
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if text_options.get("verbosity") is not None:
        chat_body["verbosity"] = text_options["verbosity"]
    if chat.limits.max_tokens is not None:
        chat_body["max_completion_tokens"] = chat.limits.max_tokens
    if chat.reasoning_effort is not None:
        chat_body["reasoning_effort"] = cast("api.ReasoningEffort", chat.reasoning_effort)
    return chat_body


def as_streamed_chat(
    body: "api.CreateChatCompletionRequest", chat: Chat, model: str
) -> "api.CreateChatCompletionRequest":
    """Returns a chat's body for an upstream: streamed, with usage, and by the model's name
    there."""
    return {
        **body,
        "model": model,
        "messages": cast("Any", list(_messages(chat.messages))),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class ChunkReader:
    """Parses the chunks of one chat completion. `failure` is an error inside the stream."""

    ends_by_done = True

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_ended = False
        self.failure: ApiError | None = None
        self._ids: dict[int, str] = {}  # call ids by the upstream's index
        self._call_count = 0
        self._open: int | None = None  # the upstream's index of the call in progress
        self._is_call_empty = False  # that call has no arguments yet

    def read(self, event: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the deltas of a chunk. Raises `UpstreamFailed` for a malformed one."""
        if event.get("error") is not None:
            self.failure = error_in_event(event["error"])
            return
        for choice in objects_in(event, "choices"):
            yield from self._deltas(choice)
        if usage := object_in(event, "usage"):
            self.usage = _usage(usage)

    def _deltas(self, choice: JsonMapping) -> Iterator[ChatDelta]:
        if number(choice, "index"):
            raise UpstreamFailed("The upstream sent a choice that was not requested.")
        delta, reason = object_in(choice, "delta"), text(choice, "finish_reason") or None
        if reason is not None and reason not in _FINISH_REASONS:
            reason = "stop"  # the document has no such finish reason
        reasoning = text(delta, "reasoning_content") or text(delta, "reasoning")
        content, refusal = text(delta, "content"), text(delta, "refusal")
        if reasoning or content or refusal:
            if ends := list(self._end_call()):
                yield ChatDelta(choice=0, tool_calls=ends)
            self._open = None
        calls = [call for one in objects_in(delta, "tool_calls") for call in self._call(one)]
        if reason in _WHOLE:
            calls += self._end_call()
        self.is_ended = self.is_ended or reason is not None
        yield ChatDelta(
            choice=0,
            reasoning=reasoning,
            content=content,
            refusal=refusal,
            tool_calls=calls,
            finish_reason=reason,
        )

    def _call(self, call: JsonMapping) -> Iterator[ToolCall]:
        """Yields the beginning of a call, or a piece of the latest call. Some upstreams repeat the
        id of a call with each piece, some give all calls the same index, and some give no ids."""
        index, id, function = number(call, "index"), text(call, "id"), object_in(call, "function")
        arguments = text(function, "arguments")
        begins_without_id = not id and index not in self._ids and text(function, "name")
        if begins_without_id or (id and self._ids.get(index) != id):
            yield from self._end_call()
            if id:
                self._ids[index] = id
            self._open = index
            self._call_count += 1
            self._is_call_empty = not arguments
            yield ToolCall(
                index=self._call_count - 1,
                id=id or f"call_{uuid.uuid4().hex[:24]}",
                name=required_text(function, "name"),
                arguments=arguments,
            )
        elif arguments:
            if self._open != index:
                raise UpstreamFailed("The upstream continued a tool call that is not in progress.")
            self._is_call_empty = False
            yield ToolCall(index=self._call_count - 1, arguments=arguments)

    def _end_call(self) -> Iterator[ToolCall]:
        """Yields the arguments of a call that has none: clients parse them as JSON."""
        if self._is_call_empty:
            self._is_call_empty = False
            yield ToolCall(index=self._call_count - 1, arguments="{}")


def _messages(messages: Sequence[Message]) -> Iterator[JsonObject]:
    """Yields the messages of the chat completion. In chat completions only the user shows images,
    so those of outputs of tools follow in a message of the user."""
    images: list[str | MediaPart] = []
    for message in messages:
        if images and message["role"] != "tool":
            yield {"role": "user", "content": chat_content(images)}
            images = []
        content = message.get("content")
        if message["role"] == "tool" and isinstance(content, list):
            images += [part for part in content if not isinstance(part, str)]
            texts = [part for part in content if isinstance(part, str)]
            message = {**message, "content": "\n".join(texts) or SHOWN_LATER}
        yield _bridged_message(message)
    if images:
        yield {"role": "user", "content": chat_content(images)}


def _is_empty(message: JsonMapping) -> bool:
    """True for an answer of reasoning alone, which chat completions have not: they refuse an
    assistant's message with neither content nor calls."""
    has_more = message.get("content") or message.get("tool_calls")
    return message["role"] == "assistant" and not has_more


def _bridged_message(message: JsonMapping) -> JsonObject:
    fields = {name: message[name] for name in _MESSAGE_FIELDS if name in message}
    return {**fields, "content": chat_content(fields["content"])} if "content" in fields else fields


def _tools(chat: Chat) -> JsonObject:
    if not chat.tools:
        return {}
    fields: JsonObject = {"tools": list(chat.tools)}
    if not chat.parallel_tool_calls:
        fields["parallel_tool_calls"] = False
    if choice := _tool_choice(chat):
        fields["tool_choice"] = choice
    return fields


def _tool_choice(chat: Chat) -> Any:
    names = sorted(chat.callable_names or ())
    if chat.callable_names is None:
        return "required" if chat.must_call else None
    choices = [{"type": "function", "function": {"name": name}} for name in names]
    if chat.must_call and len(names) == 1:
        return choices[0]
    mode = "required" if chat.must_call else "auto"
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": choices}}


def _format(text_format: "api.TextResponseFormatConfiguration") -> JsonObject:
    if text_format["type"] == "json_schema":
        schema = {name: value for name, value in text_format.items() if name != "type"}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {} if text_format["type"] == "text" else {"response_format": {"type": "json_object"}}


def _usage(usage: JsonMapping) -> Usage:
    prompt = object_in(usage, "prompt_tokens_details")
    completion = object_in(usage, "completion_tokens_details")
    return Usage(
        prompt_tokens=number(usage, "prompt_tokens"),
        completion_tokens=number(usage, "completion_tokens"),
        cached_tokens=number(prompt, "cached_tokens"),
        image_tokens=number(prompt, "image_tokens"),
        audio_tokens=number(prompt, "audio_tokens"),
        reasoning_tokens=number(completion, "reasoning_tokens"),
    )
