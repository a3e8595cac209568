"""State machine from chat deltas to stream events and the response object. Pure but for the ids
that it generates.

An answer is a sequence of output items: reasoning, a message, calls. At most one of them is open.
Events and response object come from the same state, so a streamed and a whole answer cannot differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.response_items.client_tools import ClientTool
from llm_backend.controllers.response_items.items import public_form
from llm_backend.controllers.responses.events.output_items import (
    Annotate,
    CallItemBuilder,
    OutputItemBuilder,
    TextItemBuilder,
    call_builder,
)
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    ToolEvent,
)
from llm_backend.engine.messages import TokenLogprob
from llm_backend.errors import ApiError, InvalidRequest, RateLimited
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


NO_TOOLS: Mapping[str, ClientTool] = {}
NO_FIELDS: Mapping[str, Any] = {}

# Reasons of an incomplete response, by finish reason of the model.
_CUT_BY = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _failure_code(error: ApiError) -> str:
    """Returns the document's code for the error of a failed response."""
    if isinstance(error, RateLimited):
        return "rate_limit_exceeded"
    return "invalid_prompt" if error.status == InvalidRequest.status else "server_error"


def _status_of(item: JsonMapping, status: str) -> str:
    """Returns the status of an ended item; the document has no incomplete calls that draw."""
    is_cut_drawing = status == "incomplete" and item["type"] == "image_generation_call"
    return "failed" if is_cut_drawing else status


def _no_annotations(text: str) -> Sequence[JsonObject]:
    return ()


class ResponseState:
    """One response under construction. `head` holds the fields that do not change: id, creation
    time, echoed request fields. `include` selects optional fields of items for clients. `annotate`
    returns the annotations of a message's text. `client_tools` are the client's tools by their
    names in chats. `number` is the sequence number of the next event.

    Each method returns the events of its change, in order, to be sent before the next call;
    `response` is the current object.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        *,
        include: Sequence[str] = (),
        annotate: Annotate = _no_annotations,
        client_tools: Mapping[str, ClientTool] = NO_TOOLS,
        number: int = 0,
    ) -> None:
        self._head = head
        self._include = include
        self._annotate = annotate
        self._client_tools = client_tools
        self._status = "in_progress"
        self._output: list[JsonObject] = []
        self._open: OutputItemBuilder | None = None
        self._end: JsonObject = {}
        self._number = number

    @property
    def output(self) -> Sequence[JsonObject]:
        """Finished items in the form in which they are stored."""
        return self._output

    @property
    def public_response(self) -> "api.Response":
        """Response object for clients, with the fields of items that `include` selects."""
        output = [self._visible(item) for item in self._output]
        return {**self.response, "output": cast("list[api.OutputItem]", output)}

    @property
    def response(self) -> "api.Response":
        """Response object for the store, without an item that is still open."""
        response = {
            **self._head,
            "status": self._status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "usage": None,
            **self._end,
            "output": list(self._output),
        }
        return cast("api.Response", response)

    def start(self) -> list[JsonObject]:
        """Returns the events `response.created` and `response.in_progress`."""
        return [
            self._event("response.created", response=self.public_response),
            self.mark_in_progress(),
        ]

    def queue(self) -> list[JsonObject]:
        """Returns the events `response.created` and `response.queued`."""
        self._status = "queued"
        return [
            self._event("response.created", response=self.public_response),
            self._event("response.queued", response=self.public_response),
        ]

    def mark_in_progress(self) -> JsonObject:
        """Returns the event `response.in_progress`."""
        self._status = "in_progress"
        return self._event("response.in_progress", response=self.public_response)

    def add_delta(self, delta: ChatDelta) -> list[JsonObject]:
        """Returns the events of a delta. Its finish reason is left to `finish`."""
        events: list[JsonObject] = []
        if delta.reasoning:
            events += self._add_text("reasoning", delta.reasoning, ())
        if delta.content:
            events += self._add_text("message", delta.content, delta.logprobs)
        if delta.refusal:
            events += self._add_text("refusal", delta.refusal, ())
        for call in delta.tool_calls:
            events += self._add_call(call)
        return events

    def add_tool_event(self, event: ToolEvent) -> list[JsonObject]:
        """Returns the events of a server tool's event."""
        match event:
            case CallBegan(item=item):
                return [*self.close_item(), *self._begin(OutputItemBuilder(dict(item)))]
            case CallProgress():
                return [self._item_event(event)]
            case CallEnded(item=item):
                assert self._open is not None, "an item begins before it ends"
                self._open.item = dict(item)
                return self._append_item(self._open)

    def add_summary(self, text: str) -> list[JsonObject]:
        """Returns the events of a summary of the open reasoning item."""
        assert isinstance(self._open, TextItemBuilder), "reasoning comes before its summary"
        return [self._item_event(event) for event in self._open.add_summary(text)]

    def close_item(self) -> list[JsonObject]:
        """Closes the open item and returns its events; the response continues."""
        return self._close("completed")

    def finish(
        self,
        reason: str,
        usage: "api.ResponseUsage",
        completed_at: int,
        more: Mapping[str, Any] = NO_FIELDS,
    ) -> list[JsonObject]:
        """Completes the response with a finish reason; `more` are further fields. Returns all
        events but the last: see `end`."""
        cut_by = _CUT_BY.get(reason)
        events = self._close("completed" if cut_by is None else "incomplete")
        self._status = "completed" if cut_by is None else "incomplete"
        self._end = {"usage": usage, **more}
        if cut_by is None:
            self._end["completed_at"] = completed_at
        else:
            self._end["incomplete_details"] = {"reason": cut_by}
        return events

    def fail(self, error: ApiError) -> list[JsonObject]:
        """Fails the response with this error. Returns all events but the last: see `end`."""
        events = self._close("incomplete")
        self._status = "failed"
        self._end = {"error": {"code": _failure_code(error), "message": error.message}}
        return events

    def mark_unstored(self) -> None:
        """Marks the response as not stored, although the request may ask for it."""
        self._end = {**self._end, "store": False}

    def end(self) -> JsonObject:
        """Returns the last event, with the final response. It does not advance the sequence
        number, so it can be built again as long as it has not been sent."""
        kind = f"response.{self._status}"
        return {"type": kind, "sequence_number": self._number, "response": self.public_response}

    def error(self, code: str, message: str, param: str | None) -> JsonObject:
        """Returns the `error` event of an internal error."""
        return self._event("error", code=code, message=message, param=param)

    def cancel(self) -> None:
        """Cancels the response, unless it has ended: the output so far is final."""
        if self._status not in ("queued", "in_progress"):
            return
        self._close("incomplete")
        self._status = "cancelled"

    def _add_text(
        self, kind: str, text: str, logprobs: Sequence[TokenLogprob]
    ) -> Iterator[JsonObject]:
        builder = self._open
        if not isinstance(builder, TextItemBuilder) or builder.kind != kind:
            yield from self._close("completed")
            builder = TextItemBuilder(kind, self._annotate)
            yield from self._begin(builder)
        yield self._item_event(builder.add_text(text, logprobs))

    def _add_call(self, call: ToolCall) -> Iterator[JsonObject]:
        if call.id is not None:
            yield from self._close("completed")
            yield from self._begin(call_builder(call, self._client_tools))
        if call.arguments:
            assert isinstance(self._open, CallItemBuilder), "a call begins with its id"
            yield from map(self._item_event, self._open.add_arguments(call.arguments))

    def _begin(self, builder: OutputItemBuilder) -> list[JsonObject]:
        self._open = builder
        item = self._visible(builder.item)
        added = self._output_event("response.output_item.added", item=item)
        return [added, *map(self._item_event, builder.begin())]

    def _close(self, status: str) -> list[JsonObject]:
        """Completes the open item, if there is one, and returns its events. An open compaction is
        dropped: its summary is incomplete, so it replaces nothing."""
        builder = self._open
        if builder is None or builder.item["type"] == "compaction":
            self._open = None
            return []
        events = [self._item_event(event) for event in builder.end()]
        if "status" in builder.item:
            builder.item["status"] = _status_of(builder.item, status)
        return events + self._append_item(builder)

    def _append_item(self, builder: OutputItemBuilder) -> list[JsonObject]:
        item = self._visible(builder.item)
        events = [self._output_event("response.output_item.done", item=item)]
        self._output.append(builder.item)
        self._open = None
        return events

    def _visible(self, item: JsonObject) -> JsonObject:
        return public_form(item, self._include)

    def _item_event(self, event: CallProgress) -> JsonObject:
        assert self._open is not None, "an item is open"
        return self._output_event(event.kind, item_id=self._open.item["id"], **event.fields)

    def _output_event(self, kind: str, **fields: Any) -> JsonObject:
        return self._event(kind, output_index=len(self._output), **fields)

    def _event(self, kind: str, **fields: Any) -> JsonObject:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event
