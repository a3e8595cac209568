"""Deltas -> the document's response events, and the response that they add up to. Pure but for the
ids it makes up.

An answer is a row of output items, open one after the other: reasoning, a message, calls. Every
event comes out of the one state that the response itself is read from, so a stream and a whole
answer cannot differ.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_backend.backends.base import ChatDelta, TokenLogprob, ToolCall
from llm_backend.controllers.responses.events.output_items import (
    Annotate,
    CallItemBuilder,
    OutputItemBuilder,
    TextItemBuilder,
    call_of,
)
from llm_backend.controllers.responses.input.client_tools import ClientTool
from llm_backend.controllers.responses.input.items import public_form
from llm_backend.controllers.responses.loop.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    Step,
)
from llm_backend.errors import ApiError, InvalidRequest

__all__ = ["ResponseState"]

Json = dict[str, Any]

NO_TOOLS: Mapping[str, ClientTool] = {}
NOTHING: Mapping[str, Any] = {}

# Why an answer that a model has ended is not whole.
_CUT_BY = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _no_annotations(text: str) -> Sequence[Json]:
    return ()


class ResponseState:
    """One response in the making. `head` holds what does not change: id, creation, what was asked;
    `include` says what of its items clients see, `annotate` what belongs to a message's text,
    `clients` which tools are the client's by their names in chats, and `number` how many events of
    it have been told before.

    Each method gives the events of what happened, in order, to be sent before the next is called;
    `response` is the object as it stands.
    """

    def __init__(
        self,
        head: Mapping[str, Any],
        *,
        include: Sequence[str] = (),
        annotate: Annotate = _no_annotations,
        clients: Mapping[str, ClientTool] = NO_TOOLS,
        number: int = 0,
    ) -> None:
        self._head = head
        self._include = include
        self._annotate = annotate
        self._clients = clients
        self._status = "in_progress"
        self._output: list[Json] = []
        self._open: OutputItemBuilder | None = None
        self._end: Json = {}
        self._number = number

    @property
    def output(self) -> Sequence[Json]:
        """The items that have been said to their end, as they are kept."""
        return self._output

    @property
    def shown(self) -> Json:
        """The response object as clients see it: `include` says what of its items."""
        return {**self.response, "output": [self._visible(item) for item in self._output]}

    @property
    def response(self) -> Json:
        """The response object as it is kept; an item that is still being said is not in it."""
        return {
            **self._head,
            "status": self._status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "usage": None,
            **self._end,
            "output": list(self._output),
        }

    def start(self) -> list[Json]:
        """It exists, and is being answered."""
        return [self._event("response.created", response=self.shown), self.proceed()]

    def queue(self) -> list[Json]:
        """It exists, and will be answered."""
        self._status = "queued"
        return [
            self._event("response.created", response=self.shown),
            self._event("response.queued", response=self.shown),
        ]

    def proceed(self) -> Json:
        """It is being answered."""
        self._status = "in_progress"
        return self._event("response.in_progress", response=self.shown)

    def take(self, delta: ChatDelta) -> list[Json]:
        """What the model said next. Its end is told by `finish`, not here."""
        events: list[Json] = []
        if delta.reasoning:
            events += self._say("reasoning", delta.reasoning, ())
        if delta.content:
            events += self._say("message", delta.content, delta.logprobs)
        if delta.refusal:
            events += self._say("refusal", delta.refusal, ())
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def tell(self, step: Step) -> list[Json]:
        """What a tool of the server does next."""
        match step:
            case CallBegan(item=item):
                return [*self.pause(), *self._begin(OutputItemBuilder(dict(item)))]
            case CallProgress():
                return [self._told(step)]
            case CallEnded(item=item):
                assert self._open is not None, "an item begins before it ends"
                self._open.item = dict(item)
                return self._put_out(self._open)

    def sum_up(self, text: str) -> list[Json]:
        """What has been thought until now, in short."""
        assert isinstance(self._open, TextItemBuilder), "it has just been thought"
        return [self._told(told) for told in self._open.sum_up(text)]

    def pause(self) -> list[Json]:
        """What is being said has come to its end, the response has not."""
        return self._close("completed")

    def finish(
        self, reason: str, usage: Json, completed_at: int, more: Mapping[str, Any] = NOTHING
    ) -> list[Json]:
        """The model has ended, for this reason; the response tells `more`. What is still to tell is
        `end`."""
        cut_by = _CUT_BY.get(reason)
        events = self._close("completed" if cut_by is None else "incomplete")
        self._status = "completed" if cut_by is None else "incomplete"
        self._end = {"usage": usage, **more}
        if cut_by is None:
            self._end["completed_at"] = completed_at
        else:
            self._end["incomplete_details"] = {"reason": cut_by}
        return events

    def fail(self, error: ApiError) -> list[Json]:
        """The answer cannot go on, or not be kept. What is still to tell is `end`."""
        events = self._close("incomplete")
        self._status = "failed"
        code = "invalid_prompt" if error.status == InvalidRequest.status else "server_error"
        self._end = {"error": {"code": code, "message": error.message}}
        return events

    def end(self) -> Json:
        """The last event: the response as it ended. Its number is not used up, so that it can be
        taken back as long as it has not been told."""
        kind = f"response.{self._status}"
        return {"type": kind, "sequence_number": self._number, "response": self.shown}

    def error(self, code: str, message: str, param: str | None) -> Json:
        """The stream breaks off, as the server failed."""
        return self._event("error", code=code, message=message, param=param)

    def leave(self) -> None:
        """Nobody wants it any more: what was said until now is all there will be."""
        self._close("incomplete")
        self._status = "cancelled"

    def _say(self, kind: str, text: str, logprobs: Sequence[TokenLogprob]) -> Iterator[Json]:
        opened = self._open
        if not isinstance(opened, TextItemBuilder) or opened.kind != kind:
            yield from self._close("completed")
            opened = TextItemBuilder(kind, self._annotate)
            yield from self._begin(opened)
        yield self._told(opened.say(text, logprobs))

    def _call(self, call: ToolCall) -> Iterator[Json]:
        if call.id is not None:
            yield from self._close("completed")
            yield from self._begin(call_of(call, self._clients))
        if call.arguments:
            assert isinstance(self._open, CallItemBuilder), "a call begins with its id"
            yield from map(self._told, self._open.argue(call.arguments))

    def _begin(self, opened: OutputItemBuilder) -> list[Json]:
        self._open = opened
        item = self._visible(opened.item)
        added = self._of_output("response.output_item.added", item=item)
        return [added, *map(self._told, opened.begin())]

    def _close(self, status: str) -> list[Json]:
        """The open item, if there is one, is said to its end."""
        opened = self._open
        if opened is None:
            return []
        events = [self._told(told) for told in opened.end()]
        if "status" in opened.item:
            opened.item["status"] = status
        return events + self._put_out(opened)

    def _put_out(self, opened: OutputItemBuilder) -> list[Json]:
        item = self._visible(opened.item)
        events = [self._of_output("response.output_item.done", item=item)]
        self._output.append(opened.item)
        self._open = None
        return events

    def _visible(self, item: Json) -> Json:
        return public_form(item, self._include)

    def _told(self, told: CallProgress) -> Json:
        assert self._open is not None, "an item is open"
        return self._of_output(told.kind, item_id=self._open.item["id"], **told.fields)

    def _of_output(self, kind: str, **fields: Any) -> Json:
        return self._event(kind, output_index=len(self._output), **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event
