"""Translation of a chat's deltas to the events of a message, and to the whole message (pure)."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from llm_backend import exact_json
from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.rendering.event_stream import EVENT_STREAM
from llm_backend.errors import ApiError
from llm_backend.json_types import JsonObject
from llm_backend.sse import encode, encode_error

# any other finish reason becomes `end_turn`, also one that only some upstream has
_STOP_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _TextPiece:
    kind: str  # text or thinking
    text: str


class MessageEvents:
    """Translates the deltas of one answer to events, and collects the whole message.

    Events of an answer: `message_start`; for each block `content_block_start`, its deltas and
    `content_block_stop`; `message_delta` and `message_stop`. Without `shows_reasoning` the message
    has no reasoning. One block is open at a time: if the pieces of calls alternate, those of the
    next block wait until the arguments of the open call are complete.
    """

    media_type = EVENT_STREAM

    def __init__(self, model: str, *, shows_reasoning: bool) -> None:
        self._shows_reasoning = shows_reasoning
        self._blocks: list[JsonObject] = []
        self._arguments: dict[int, str] = {}  # by the index of the block
        self._call_blocks: dict[int, int] = {}  # index of the block by that of the call
        self._waiting: list[_TextPiece | ToolCall] = []
        self._is_open = False
        self._message: JsonObject = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": self._blocks,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_of(Usage()),
        }

    def begin(self, usage: Usage) -> Iterator[JsonObject]:
        """Yields the first event, with the usage so far."""
        message = {**self._message, "content": [], "usage": usage_of(usage)}
        yield {"type": "message_start", "message": message}

    def read(self, delta: ChatDelta) -> Iterator[JsonObject]:
        """Yields the events of one delta."""
        if delta.reasoning and self._shows_reasoning:
            yield from self._add(_TextPiece(kind="thinking", text=delta.reasoning))
        if text := delta.content or delta.refusal:
            yield from self._add(_TextPiece(kind="text", text=text))
        for call in delta.tool_calls:
            yield from self._add(call)
        if delta.refusal:
            self._message["stop_reason"] = "refusal"
        if delta.finish_reason is not None and self._message["stop_reason"] is None:
            self._message["stop_reason"] = _STOP_REASONS.get(delta.finish_reason, "end_turn")
            if delta.stop_sequence is not None:
                self._message["stop_reason"] = "stop_sequence"
                self._message["stop_sequence"] = delta.stop_sequence

    def end(self, usage: Usage) -> Iterator[JsonObject]:
        """Yields the last events, with the usage of the whole answer."""
        yield from self._close()
        while self._waiting:  # the arguments of a call were cut off
            yield from self._add_waiting()
            yield from self._close()
        self._message["stop_reason"] = self._stop_reason()
        self._message["usage"] = usage_of(usage)
        ending = {key: self._message[key] for key in ("stop_reason", "stop_sequence")}
        yield {"type": "message_delta", "delta": ending, "usage": self._message["usage"]}
        yield {"type": "message_stop"}

    def whole(self) -> JsonObject:
        """Returns the whole message. The input of a call that a limit cut off is empty."""
        for index, text in self._arguments.items():
            self._blocks[index]["input"] = exact_json.parse_object(text) or {}
        return self._message

    def encode(self, part: JsonObject) -> bytes:
        """Encodes one event."""
        return encode(exact_json.dumps(part), part["type"])

    def encode_error(self, error: ApiError) -> bytes:
        """Encodes the event that ends a failed stream."""
        return encode_error("/messages", error)

    def _stop_reason(self) -> str:
        """Returns the reason. Some upstreams give none, or `stop` for an answer that calls a tool,
        but clients run a tool only for `tool_use`."""
        reason = self._message["stop_reason"] or "end_turn"
        return "tool_use" if reason == "end_turn" and self._call_blocks else reason

    def _add(self, piece: _TextPiece | ToolCall) -> Iterator[JsonObject]:
        if self._must_wait(piece):
            self._waiting.append(piece)
            return
        if isinstance(piece, _TextPiece):
            yield from self._text_piece(piece)
        else:
            yield from self._call_piece(piece)
        if self._waiting and self._is_complete():
            yield from self._add_waiting()

    def _add_waiting(self) -> Iterator[JsonObject]:
        waiting, self._waiting = self._waiting, []
        for piece in waiting:
            yield from self._add(piece)

    def _must_wait(self, piece: _TextPiece | ToolCall) -> bool:
        """True for a piece of another block than the open call, which is not complete."""
        is_of_begun_call = (
            isinstance(piece, ToolCall) and piece.id is None and piece.index in self._call_blocks
        )
        return not is_of_begun_call and not self._is_complete()

    def _is_complete(self) -> bool:
        """True unless a call is open whose arguments are not a whole object yet."""
        if not self._is_open or self._blocks[-1]["type"] != "tool_use":
            return True
        arguments = self._arguments[len(self._blocks) - 1]
        return arguments.rstrip().endswith("}") and exact_json.parse_object(arguments) is not None

    def _text_piece(self, piece: _TextPiece) -> Iterator[JsonObject]:
        kind = piece.kind
        if not self._is_open or self._blocks[-1]["type"] != kind:
            block: JsonObject = {"type": kind, kind: ""}
            if kind == "thinking":
                block["signature"] = ""
            yield from self._open(block)
        self._blocks[-1][kind] += piece.text
        yield _delta(len(self._blocks) - 1, {"type": f"{kind}_delta", kind: piece.text})

    def _call_piece(self, call: ToolCall) -> Iterator[JsonObject]:
        if call.id is not None:
            yield from self._open(
                {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            )
            self._call_blocks[call.index] = len(self._blocks) - 1
            self._arguments[len(self._blocks) - 1] = ""
        index = self._call_blocks[call.index]
        is_open = self._is_open and index == len(self._blocks) - 1
        if call.arguments and is_open:  # a whole object needs no further piece
            self._arguments[index] += call.arguments
            yield _delta(index, {"type": "input_json_delta", "partial_json": call.arguments})

    def _open(self, block: JsonObject) -> Iterator[JsonObject]:
        yield from self._close()
        self._is_open = True
        self._blocks.append(block)
        start = {"index": len(self._blocks) - 1, "content_block": dict(block)}
        yield {"type": "content_block_start", **start}

    def _close(self) -> Iterator[JsonObject]:
        if self._is_open:
            self._is_open = False
            yield {"type": "content_block_stop", "index": len(self._blocks) - 1}


def _delta(index: int, delta: JsonObject) -> JsonObject:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def usage_of(usage: Usage) -> JsonObject:
    """Returns the usage of a message; `input_tokens` do not include cached tokens."""
    return {
        "input_tokens": max(0, usage.prompt_tokens - usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
