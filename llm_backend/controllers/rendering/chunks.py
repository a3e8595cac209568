"""Rendering of deltas as the document's objects and chunks. Pure.

A chat is always rendered as chunks, from which `fold` makes the whole completion: streamed and
whole answers cannot differ.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from orjson import Fragment

from llm_backend.backends.base import ChatDelta, ModelCard, TextDelta, ToolCall, Usage
from llm_backend.engine.messages import TokenLogprob
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


FINGERPRINT = "fp_llm_backend"


@dataclass(frozen=True, kw_only=True)
class ChunkHead:
    """Fields repeated by every chunk of one answer. `includes_usage` adds a `usage` key to each.
    `service_tier` is a chat's; text completions have none."""

    id: str
    kind: str  # `chat.completion.chunk` or `text_completion`
    created_at: int
    model: str
    includes_usage: bool = False
    service_tier: str | None = None

    def chunk(self, choices: Sequence[JsonMapping]) -> JsonObject:
        """Returns a chunk with these choices."""
        chunk: JsonObject = {
            "id": self.id,
            "object": self.kind,
            "created": self.created_at,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }
        if self.service_tier:
            chunk["service_tier"] = self.service_tier
        if self.includes_usage:
            chunk["usage"] = None
        return chunk


def role_chunk(
    head: ChunkHead, choice: int, *, content: str | None = "", **more: JsonObject | list[JsonObject]
) -> "api.CreateChatCompletionStreamResponse":
    """Returns the first chunk of a chat's choice: its role, and `more` fields of its message;
    `content` is null if the choice begins with a call or with reasoning."""
    delta = {"role": "assistant", "content": content, "refusal": None, **more}
    return _chat_choice(head, choice, cast("api.ChatCompletionStreamResponseDelta", delta))


def chat_chunk(head: ChunkHead, delta: ChatDelta) -> "api.CreateChatCompletionStreamResponse":
    """Returns the chunk of one delta."""
    fields: api.ChatCompletionStreamResponseDelta = {}
    if delta.reasoning:
        fields["reasoning_content"] = delta.reasoning
    if delta.content:
        fields["content"] = delta.content
    if delta.refusal:
        fields["refusal"] = delta.refusal
    if delta.tool_calls:
        fields.update(_calls(delta.tool_calls))
    return _chat_choice(head, delta.choice, fields, delta.logprobs, delta.finish_reason)


def _calls(calls: Sequence[ToolCall]) -> "api.ChatCompletionStreamResponseDelta":
    """Returns the calls of one delta, in the form of the client's request."""
    if not calls[0].is_deprecated:
        return {"tool_calls": [_call(call) for call in calls]}
    function: api.ChatCompletionStreamResponseDeltaFunctionCall = {}
    if calls[0].name is not None:
        function["name"] = calls[0].name
    function["arguments"] = "".join(call.arguments for call in calls)
    return {"function_call": function}


def _call(call: ToolCall) -> "api.ChatCompletionMessageToolCallChunk":
    """Returns the beginning of a call, or more of its arguments."""
    kind, field = ("custom", "input") if call.is_custom else ("function", "arguments")
    chunk: JsonObject = {"index": call.index, kind: {field: call.arguments}}
    if call.id is not None:
        chunk = {
            "index": call.index,
            "id": call.id,
            "type": kind,
            kind: {"name": call.name, field: call.arguments},
        }
    return cast("api.ChatCompletionMessageToolCallChunk", chunk)


def usage_chunk(head: ChunkHead, usage: Usage) -> JsonObject:
    """Returns the usage chunk after the last choice, sent if the client asked for it."""
    return head.chunk([]) | {"usage": usage_object(usage)}


def usage_object(usage: Usage) -> "api.CompletionUsage":
    """Returns the document's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "text_tokens": usage.text_tokens,
            "image_tokens": usage.image_tokens,
            "audio_tokens": usage.audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": usage.right_prediction_tokens,
            "rejected_prediction_tokens": usage.wrong_prediction_tokens,
        },
        "timings": {
            "queue_s": round(usage.queue_s, 6),
            "prompt_s": round(usage.prompt_s, 6),
            "generation_s": round(usage.generation_s, 6),
            "tokens_per_second": round(usage.tokens_per_second, 3),
        },
    }


class TextOffsets:
    """Offsets of the tokens of one text, in characters. A character may be spread over tokens, and
    the text of a token over chunks."""

    def __init__(self) -> None:
        self._end = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def append(self, entry: TokenLogprob) -> int:
        """Appends a token; returns its offset."""
        offset = self._end
        self._end += len(self._decoder.decode(entry.bytes[entry.omitted_bytes :]))
        return offset


def text_chunk(
    head: ChunkHead,
    index: int,
    delta: TextDelta,
    offsets: TextOffsets,
    *,
    has_logprobs: bool = False,
) -> JsonObject:
    """Returns a chunk of a text completion; `offsets` are those of the choice's tokens. With
    `has_logprobs` the logprobs are present even if there are no tokens."""
    has_logprobs = has_logprobs or bool(delta.logprobs)
    return head.chunk(
        [
            {
                "index": index,
                "text": delta.text,
                "logprobs": _text_logprobs(delta.logprobs, offsets) if has_logprobs else None,
                "finish_reason": delta.finish_reason,
            }
        ]
    )


def model_object(card: ModelCard) -> JsonObject:
    """Returns the document's model object, with the fields that only this server has."""
    model: api.Model = {
        "id": card.id,
        "object": "model",
        "created": card.created_at,
        "owned_by": card.owned_by,
    }
    return {**model, **dict(card.more)}


def embeddings(
    rows: Sequence[str | Fragment], model: str, prompt_tokens: int
) -> "api.CreateEmbeddingResponse":
    """Returns the document's list of embeddings; a row is base64, or its numbers as JSON."""
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": cast("str | list[float]", row)}
            for index, row in enumerate(rows)
        ],
        "model": model,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    }


def _chat_choice(
    head: ChunkHead,
    choice: int,
    delta: "api.ChatCompletionStreamResponseDelta",
    logprobs: Sequence[TokenLogprob] = (),
    finish_reason: str | None = None,
) -> "api.CreateChatCompletionStreamResponse":
    rendered: api.CreateChatCompletionStreamResponseChoice = {
        "index": choice,
        "delta": delta,
        "logprobs": chat_logprobs(logprobs) if logprobs else None,
        "finish_reason": cast("Any", finish_reason),
    }
    return cast("api.CreateChatCompletionStreamResponse", head.chunk([rendered]))


def chat_logprobs(
    logprobs: Sequence[TokenLogprob],
) -> "api.CreateChatCompletionStreamResponseChoiceLogprobs":
    """Returns the document's logprobs of a chat's choice."""
    content: list[api.ChatCompletionTokenLogprob] = [
        {**token_object(entry), "top_logprobs": [token_object(other) for other in entry.top]}
        for entry in logprobs
    ]
    return {"content": content, "refusal": None}


def token_object(entry: TokenLogprob) -> "api.ChatCompletionTokenLogprobTopLogprob":
    """Returns the document's token object with its logprob."""
    return {
        "token": _token_text(entry),
        "logprob": _finite(entry.logprob),
        "bytes": list(entry.bytes),
    }


def _text_logprobs(
    logprobs: Sequence[TokenLogprob], offsets: TextOffsets
) -> "api.CreateCompletionResponseChoiceLogprobs":
    return {
        "tokens": [_token_text(entry) for entry in logprobs],
        "token_logprobs": [_finite_or_none(entry.logprob) for entry in logprobs],
        "top_logprobs": [_top(entry) for entry in logprobs],
        "text_offset": [offsets.append(entry) for entry in logprobs],
    }


def _top(entry: TokenLogprob) -> dict[str, float] | None:
    if entry.logprob is None:
        return None
    # the likeliest tokens, and the token itself if it is not among them
    return {_token_text(one): _finite(one.logprob) for one in (*entry.top, entry)}


def _token_text(entry: TokenLogprob) -> str:
    """Returns a token as text; incomplete UTF-8 in OpenAI's form of escaped bytes."""
    try:
        return entry.bytes.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in entry.bytes)


def _finite_or_none(logprob: float | None) -> float | None:
    return None if logprob is None else _finite(logprob)


def _finite(logprob: float | None) -> float:
    """Returns a finite logprob: JSON has no infinity, and OpenAI uses -9999 for impossible."""
    return -9999.0 if logprob is None else max(logprob, -9999.0)
