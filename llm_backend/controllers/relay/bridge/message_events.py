"""Bridge from Anthropic's Messages: translates a message's events to deltas of a chat (pure)."""

from collections.abc import Iterator
from dataclasses import replace

from llm_backend import exact_json
from llm_backend.access.usage.estimate import ESTIMATED_BYTES_PER_TOKEN
from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.relay.bridge.event_fields import (
    error_in_event,
    number,
    object_in,
    objects_in,
    required_text,
    text,
)
from llm_backend.errors import ApiError, UpstreamFailed
from llm_backend.json_types import JsonMapping

_REASONS = {  # finish reasons; any other is `stop`
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_IGNORED_BLOCKS = frozenset({"redacted_thinking"})  # which only Anthropic can read


class MessageReader:
    """Parses the events of one message; `failure` is an error inside the stream. A block that a
    chat cannot have is an error, unless `skips_unknown`."""

    ends_by_done = False

    def __init__(self, *, skips_unknown: bool = False) -> None:
        self._skips_unknown = skips_unknown
        self.is_ended = False
        self.failure: ApiError | None = None
        self._reported = Usage()
        self._is_output_final = False
        self._usage: dict[str, int] = {}
        self._text_bytes = 0
        self._calls = 0
        self._is_call_empty = False  # the call in progress has no arguments yet
        self._is_in_unknown = False
        self._has_reason = False

    @property
    def usage(self) -> Usage:
        """Reported tokens. `message_start` reports the input tokens and one output token; the last
        event reports all output tokens, which are estimated from the text until then."""
        if self._is_output_final or not self._usage:
            return self._reported
        estimated = -(-self._text_bytes // ESTIMATED_BYTES_PER_TOKEN)
        tokens = max(self._reported.completion_tokens, estimated)
        return replace(self._reported, completion_tokens=tokens)

    def read(self, event: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the deltas of an event. Raises `UpstreamFailed` for a malformed one."""
        self.read_usage(event)
        kind = text(event, "type")
        if kind == "content_block_start":
            yield from self._begin(object_in(event, "content_block"))
        elif kind == "content_block_delta":
            yield from self._delta(object_in(event, "delta"))
        elif kind == "content_block_stop":
            yield from self._end_call()
        elif kind == "message_delta":
            yield from self._reason(object_in(event, "delta"))
        elif kind == "message_stop":
            yield from self._end()
        elif kind == "error" or event.get("error") is not None:
            self.failure = error_in_event(event.get("error"))

    def read_whole(self, message: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the deltas of a message that is no stream. Raises as `read`."""
        self._merge_final_usage(object_in(message, "usage"))
        for block in objects_in(message, "content"):
            yield from self._begin(block)
        yield from self._reason(message)
        yield from self._end()

    def read_usage(self, event: JsonMapping) -> None:
        """Reads the usage that an event reports. Raises as `read`."""
        kind = text(event, "type")
        if kind == "message_start":
            self._merge_usage(object_in(object_in(event, "message"), "usage"))
        elif kind == "message_delta":
            self._merge_final_usage(object_in(event, "usage"))

    def _begin(self, block: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the beginning of a block, which may be the whole block."""
        yield from self._end_call()
        kind = required_text(block, "type")
        self._is_in_unknown = False
        if kind == "tool_use":
            yield from self._begin_call(block)
        elif kind in ("text", "thinking"):
            yield from self._pieces(text(block, "text"), text(block, "thinking"))
        elif self._skips_unknown:
            self._is_in_unknown = True
        elif kind not in _IGNORED_BLOCKS:
            raise UpstreamFailed("The upstream answered with a block that no chat has.")

    def _begin_call(self, block: JsonMapping) -> Iterator[ChatDelta]:
        given = object_in(block, "input")
        arguments = exact_json.dumps(given) if given else b""
        self._text_bytes += len(arguments)
        call = ToolCall(
            index=self._calls,
            id=required_text(block, "id"),
            name=required_text(block, "name"),
            arguments=arguments.decode(),
        )
        self._calls += 1
        self._is_call_empty = not arguments
        yield ChatDelta(choice=0, tool_calls=[call])

    def _end_call(self) -> Iterator[ChatDelta]:
        """Yields the arguments of a call that has none: clients parse them as JSON."""
        if self._is_call_empty:
            self._is_call_empty = False
            call = ToolCall(index=self._calls - 1, arguments="{}")
            yield ChatDelta(choice=0, tool_calls=[call])

    def _delta(self, delta: JsonMapping) -> Iterator[ChatDelta]:
        kind = text(delta, "type")
        if self._is_in_unknown:
            return
        if kind == "input_json_delta" and self._calls:
            arguments = text(delta, "partial_json")
            self._text_bytes += len(arguments.encode())
            if arguments:
                self._is_call_empty = False
                call = ToolCall(index=self._calls - 1, arguments=arguments)
                yield ChatDelta(choice=0, tool_calls=[call])
        elif kind == "input_json_delta":
            raise UpstreamFailed("The upstream continued a tool call that is not in progress.")
        else:
            yield from self._pieces(text(delta, "text"), text(delta, "thinking"))

    def _pieces(self, content: str, reasoning: str) -> Iterator[ChatDelta]:
        self._text_bytes += len(content.encode()) + len(reasoning.encode())
        if content or reasoning:
            yield ChatDelta(choice=0, content=content, reasoning=reasoning)

    def _reason(self, fields: JsonMapping) -> Iterator[ChatDelta]:
        """Yields the finish reason, once: a message may have several `message_delta` events, and
        only some of them have it."""
        yield from self._end_call()
        reason = text(fields, "stop_reason")
        if not reason or self._has_reason:
            return
        self._has_reason = True
        stop = text(fields, "stop_sequence") if reason == "stop_sequence" else ""
        yield ChatDelta(
            choice=0, finish_reason=_REASONS.get(reason, "stop"), stop_sequence=stop or None
        )

    def _end(self) -> Iterator[ChatDelta]:
        """Ends the message; yields a finish reason if it had none."""
        yield from self._reason({"stop_reason": "end_turn"})
        self.is_ended = True

    def _merge_final_usage(self, usage: JsonMapping) -> None:
        self._merge_usage(usage)
        self._is_output_final = "output_tokens" in self._usage

    def _merge_usage(self, usage: JsonMapping) -> None:
        """Merges an event's counts into the earlier ones: some servers omit input tokens in the
        last event."""
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        for name in (*names, "output_tokens"):
            if usage.get(name) is not None:
                self._usage[name] = number(usage, name)
        details = object_in(usage, "output_tokens_details")
        cached = self._usage.get("cache_read_input_tokens", 0)
        self._reported = Usage(
            prompt_tokens=sum(self._usage.get(name, 0) for name in names),
            cached_tokens=cached,
            completion_tokens=self._usage.get("output_tokens", 0),
            reasoning_tokens=number(details, "thinking_tokens"),
        )
