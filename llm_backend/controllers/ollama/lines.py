"""Translation of deltas to the lines of Ollama's answers (pure but for the clock)."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from llm_backend import exact_json
from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.rendering.chunks import token_object
from llm_backend.engine.messages import TokenLogprob
from llm_backend.errors import ApiError, UpstreamFailed
from llm_backend.json_types import JsonObject
from llm_backend.sse import NDJSON, encode_error

_NS = 1_000_000_000


@dataclass(kw_only=True)
class AnswerTimes:
    """Times of one answer, as readings of `time.perf_counter`; 0 if not reached yet."""

    began_s: float = field(default_factory=time.perf_counter)
    admitted_s: float = 0.0
    first_delta_s: float = 0.0

    def counts(self, usage: Usage) -> JsonObject:
        """Returns durations in nanoseconds, and numbers of tokens. An upstream reports no
        durations: its first delta counts as the end of prefill. Clients divide by some, which are
        never 0."""
        now_s = time.perf_counter()
        first_delta_s = self.first_delta_s or now_s
        measured = usage.prompt_s + usage.generation_s > 0
        eval_s = usage.generation_s if measured else now_s - first_delta_s
        prompt_s = usage.prompt_s if measured else first_delta_s - self.admitted_s
        return {
            "total_duration": int((now_s - self.began_s) * _NS),
            "load_duration": int((self.admitted_s - self.began_s) * _NS),
            "prompt_eval_count": usage.prompt_tokens,
            "prompt_eval_duration": max(1, int(prompt_s * _NS)),
            "eval_count": usage.completion_tokens,
            "eval_duration": max(1, int(eval_s * _NS)),
        }


class OllamaLines:
    """Translates the deltas of one answer to lines, and collects the whole answer. A chat's text is
    in `message`, that of a generation in `response`. A tool call is one line."""

    media_type = NDJSON

    def __init__(self, model: str, *, is_chat: bool, shows_reasoning: bool) -> None:
        self._model = model
        self._is_chat = is_chat
        self._shows_reasoning = shows_reasoning
        self._times = AnswerTimes()
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[JsonObject] = []
        self._logprobs: list[JsonObject] = []
        self._open_call: ToolCall | None = None
        self._arguments: list[str] = []
        self._reason = "stop"
        self._last: JsonObject = {}

    def begin(self, usage: Usage) -> Iterator[JsonObject]:
        """Yields nothing: the first delta is the first line."""
        self._times.admitted_s = time.perf_counter()
        yield from ()

    def read(self, delta: ChatDelta) -> Iterator[JsonObject]:
        """Yields the lines of one delta."""
        self._times.first_delta_s = self._times.first_delta_s or time.perf_counter()
        text = delta.content or delta.refusal
        reasoning = delta.reasoning if self._shows_reasoning else ""
        if text or reasoning or delta.logprobs:
            yield self._piece(text, reasoning, [_logprob(entry) for entry in delta.logprobs])
        for call in delta.tool_calls:
            yield from self._call_piece(call)
        if delta.finish_reason is not None:
            self._reason = "length" if delta.finish_reason == "length" else "stop"

    def end(self, usage: Usage) -> Iterator[JsonObject]:
        """Yields the line of the open call, if there is one, and the last line with the counts."""
        yield from self._close_call(is_cut=self._reason == "length")
        counts = self._times.counts(usage)
        self._last = {"done": True, "done_reason": self._reason, **counts}
        yield self._line("", "", **self._last)

    def whole(self) -> JsonObject:
        """Returns the whole answer as one object."""
        return self._line(
            "".join(self._text), "".join(self._reasoning), self._calls, self._logprobs, **self._last
        )

    def encode(self, part: JsonObject) -> bytes:
        """Encodes one line."""
        return exact_json.dumps(part) + b"\n"

    def encode_error(self, error: ApiError) -> bytes:
        """Encodes the line that ends a failed stream."""
        return encode_error("/api/chat", error)

    def finish(self, reason: str) -> JsonObject:
        """Returns the answer to a request that only loads or unloads the model."""
        return self._line("", "", done=True, done_reason=reason)

    def _piece(self, text: str, reasoning: str, logprobs: list[JsonObject]) -> JsonObject:
        self._text.append(text)
        self._reasoning.append(reasoning)
        self._logprobs += logprobs
        return self._line(text, reasoning, logprobs=logprobs, done=False)

    def _call_piece(self, call: ToolCall) -> Iterator[JsonObject]:
        if call.id is not None:
            yield from self._close_call()
            self._open_call, self._arguments = call, []
        self._arguments.append(call.arguments)

    def _close_call(self, *, is_cut: bool = False) -> Iterator[JsonObject]:
        """Yields the line of the open call. A call that a limit cut off has none."""
        call, self._open_call = self._open_call, None
        if call is None:
            return
        arguments = _arguments("".join(self._arguments))
        if arguments is None and is_cut:
            return
        if arguments is None:
            raise UpstreamFailed("The arguments of a tool call by the model are not a JSON object.")
        function = {"index": len(self._calls), "name": call.name, "arguments": arguments}
        rendered: JsonObject = {"id": call.id, "function": function}
        self._calls.append(rendered)
        yield self._line("", "", [rendered], done=False)

    def _line(
        self,
        text: str,
        reasoning: str,
        calls: Sequence[JsonObject] = (),
        logprobs: Sequence[JsonObject] = (),
        **more: Any,
    ) -> JsonObject:
        line: JsonObject = {"model": self._model, "created_at": format_time(time.time())}
        if self._is_chat:
            message: JsonObject = {"role": "assistant", "content": text}
            message |= {"thinking": reasoning} if reasoning else {}
            message |= {"tool_calls": list(calls)} if calls else {}
            line["message"] = message
        else:
            line["response"] = text
            line |= {"thinking": reasoning} if reasoning else {}
        line |= {"logprobs": list(logprobs)} if logprobs else {}
        return line | more


def _arguments(text: str) -> JsonObject | None:
    """Parses the arguments of a call; returns None if they are not a JSON object."""
    return exact_json.parse_object(text or "{}")


def format_time(at_s: float) -> str:
    """Returns Unix seconds in the form of Ollama's answers."""
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def _logprob(entry: TokenLogprob) -> JsonObject:
    rendered: JsonObject = {**token_object(entry)}
    if entry.top:
        rendered["top_logprobs"] = [token_object(other) for other in entry.top]
    return rendered
