"""Output item builders: they make an item and its stream events piece by piece. Pure but for the
ids that they generate.

`response_state` adds the fields that all events have.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from llm_backend.backends.base import ToolCall
from llm_backend.controllers.generation.custom_input import CustomInput
from llm_backend.controllers.rendering.chunks import token_object
from llm_backend.controllers.response_items.client_tools import ClientTool
from llm_backend.controllers.response_items.items import new_id
from llm_backend.controllers.services.server_tools import CallProgress
from llm_backend.engine.messages import TokenLogprob
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    ContentPart = api.OutputTextContent | api.RefusalContent | api.ReasoningTextContent

Annotate = Callable[[str], Sequence[JsonObject]]
"""Returns the annotations of a message's text."""

_TEXTS = {"message": "output_text", "refusal": "refusal", "reasoning": "reasoning_text"}
"""Name of the text in event types, by kind of text."""


class OutputItemBuilder:
    """An output item under construction; `item` is its current state. This base class, used for
    items of server tools, has no events of its own."""

    def __init__(self, item: JsonObject) -> None:
        self.item = item
        self._pieces: list[str] = []

    def begin(self) -> list[CallProgress]:
        """Returns the events after `response.output_item.added`."""
        return []

    def end(self) -> list[CallProgress]:
        """Completes `item` and returns the events before `response.output_item.done`."""
        return []

    @property
    def _text(self) -> str:
        return "".join(self._pieces)


class TextItemBuilder(OutputItemBuilder):
    """Builder of an item with one part of text: a message, a refusal (which is a message, too) or
    reasoning. Annotations are computed once the text is complete."""

    def __init__(self, kind: str, annotate: Annotate) -> None:
        type = "reasoning" if kind == "reasoning" else "message"
        item: JsonObject = {
            "id": new_id(type),
            "type": type,
            "status": "in_progress",
            "content": [],
        }
        name, value = ("role", "assistant") if type == "message" else ("summary", [])
        super().__init__({**item, name: value})
        self.kind = kind
        self._annotate = annotate
        self._is_message = kind == "message"
        self._event = f"response.{_TEXTS[kind]}"
        self._logprobs: list[api.LogProb] = []

    def begin(self) -> list[CallProgress]:
        """Returns the event of the added content part."""
        return [self._text_event("response.content_part.added", part=self._part(""))]

    def add_text(self, text: str, logprobs: Sequence[TokenLogprob]) -> CallProgress:
        """Appends text and returns its delta event; only a message has logprobs."""
        self._pieces.append(text)
        if not self._is_message:
            return self._text_event(f"{self._event}.delta", delta=text)
        entries = [_log_prob(entry) for entry in logprobs]
        self._logprobs += entries
        return self._text_event(f"{self._event}.delta", delta=text, logprobs=entries)

    def add_summary(self, text: str) -> list[CallProgress]:
        """Appends a summary to a reasoning item and returns its events."""
        before, part = self.item["summary"], {"type": "summary_text", "text": text}
        index, self.item["summary"] = len(before), [*before, part]
        kind, where = "response.reasoning_summary", {"summary_index": index}
        empty = {**part, "text": ""}
        return [
            CallProgress(kind=f"{kind}_part.added", fields={**where, "part": empty}),
            CallProgress(kind=f"{kind}_text.delta", fields={**where, "delta": text}),
            CallProgress(kind=f"{kind}_text.done", fields={**where, "text": text}),
            CallProgress(kind=f"{kind}_part.done", fields={**where, "part": part}),
        ]

    def end(self) -> list[CallProgress]:
        """Completes the text and returns the events of its annotations and its end."""
        text = self._text
        part = self._part(text)
        self.item["content"] = [part]
        annotation_events = [
            self._text_event(
                f"{self._event}.annotation.added", annotation_index=index, annotation=one
            )
            for index, one in enumerate(
                part["annotations"] if part["type"] == "output_text" else ()
            )
        ]
        whole: JsonObject = {"refusal" if self.kind == "refusal" else "text": text}
        if self._is_message:
            whole["logprobs"] = list(self._logprobs)
        done = self._text_event(f"{self._event}.done", **whole)
        return [*annotation_events, done, self._text_event("response.content_part.done", part=part)]

    def _part(self, text: str) -> "ContentPart":
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        if not self._is_message:
            return {"type": "reasoning_text", "text": text}
        annotations = list(self._annotate(text)) if text else []
        logprobs = list(self._logprobs)
        return {
            "type": "output_text",
            "text": text,
            "annotations": cast("list[api.Annotation]", annotations),
            "logprobs": logprobs,
        }

    def _text_event(self, kind: str, **fields: Any) -> CallProgress:
        return CallProgress(kind=kind, fields={"content_index": 0, **fields})


class CallItemBuilder(OutputItemBuilder):
    """Builder of a call of a function that the client runs; a subclass builds custom calls."""

    event, field = "response.function_call_arguments", "arguments"

    def __init__(self, call: ToolCall, tool: ClientTool | None) -> None:
        kind = "custom_tool_call" if tool is not None and tool.is_custom else "function_call"
        item: JsonObject = {
            "id": new_id(kind),
            "type": kind,
            "status": "in_progress",
            "call_id": call.id,
            "name": call.name if tool is None else tool.name,
            self.field: "",
        }
        if tool is not None and tool.namespace is not None:
            item["namespace"] = tool.namespace
        super().__init__(item)

    def add_arguments(self, arguments: str) -> list[CallProgress]:
        """Appends a piece of the arguments and returns its delta event."""
        return self._add(arguments)

    def end(self) -> list[CallProgress]:
        """Completes the arguments and returns the `done` event."""
        text = self.item["arguments"] = self._text
        fields = {"name": self.item["name"], "arguments": text}
        return [CallProgress(kind=f"{self.event}.done", fields=fields)]

    def _add(self, piece: str) -> list[CallProgress]:
        if not piece:
            return []
        self._pieces.append(piece)
        return [CallProgress(kind=f"{self.event}.delta", fields={"delta": piece})]


class _CustomCallItemBuilder(CallItemBuilder):
    """Builder of a custom tool's call: extracts the input from the JSON arguments."""

    event, field = "response.custom_tool_call_input", "input"

    def __init__(self, call: ToolCall, tool: ClientTool) -> None:
        super().__init__(call, tool)
        self._input = CustomInput()

    def add_arguments(self, arguments: str) -> list[CallProgress]:
        """Appends the input contained in a piece of the arguments and returns its delta event."""
        return self._add(self._input.feed(arguments))

    def end(self) -> list[CallProgress]:
        """Completes the input and returns the remaining events."""
        rest = self._add(self._input.finish())
        text = self.item["input"] = self._text
        return [*rest, CallProgress(kind=f"{self.event}.done", fields={"input": text})]


def call_builder(call: ToolCall, client_tools: Mapping[str, ClientTool]) -> CallItemBuilder:
    """Returns the builder for a new call; `client_tools` are the client's tools by their names in
    chats."""
    tool = client_tools.get(call.name or "")
    if tool is not None and tool.is_custom:
        return _CustomCallItemBuilder(call, tool)
    return CallItemBuilder(call, tool)


def _log_prob(entry: TokenLogprob) -> "api.LogProb":
    top = [_top_log_prob(other) for other in entry.top]
    return {**_top_log_prob(entry), "top_logprobs": top}


def _top_log_prob(entry: TokenLogprob) -> "api.TopLogProb":
    return cast("api.TopLogProb", token_object(entry))  # its `bytes` are never null here
