"""Deltas -> the document's response events, and the response that they add up to. Pure but for the
ids it makes up.

An answer is a row of output items, open one after the other: reasoning, a message, calls. Every
event comes out of the one state that the response itself is read from, so a stream and a whole
answer cannot differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_backend.backends.base import ChatDelta, TokenLogprob, ToolCall
from llm_backend.controllers.render import token_object
from llm_backend.controllers.responses.client_tools import ClientTool
from llm_backend.controllers.responses.custom_input import CustomInput
from llm_backend.controllers.responses.items import new_id, shown_item
from llm_backend.controllers.responses.server_tools import Begun, Ended, Step, Told
from llm_backend.errors import ApiError, InvalidRequest

__all__ = ["ResponseState"]

Json = dict[str, Any]
Annotate = Callable[[str], Sequence[Json]]
"""The annotations of a message's text."""

NO_TOOLS: Mapping[str, ClientTool] = {}
ARGUMENTS, CUSTOM_INPUT = "function_call_arguments", "custom_tool_call_input"  # events about them
CUSTOM_CALL = "custom_tool_call"


def _unannotated(text: str) -> Sequence[Json]:
    return ()


@dataclass(kw_only=True)
class _Open:
    """The output item that is being said, as it will be shown, and its text so far; `input` reads
    that of a custom tool's call."""

    item: Json
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    input: CustomInput | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


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
        annotate: Annotate = _unannotated,
        clients: Mapping[str, ClientTool] = NO_TOOLS,
        number: int = 0,
    ) -> None:
        self._head = head
        self._include = include
        self._annotate = annotate
        self._clients = clients
        self._status = "in_progress"
        self._output: list[Json] = []
        self._open: _Open | None = None
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
        for call in delta.tool_calls:
            events += self._call(call)
        return events

    def tell(self, step: Step) -> list[Json]:
        """What a tool of the server does next."""
        match step:
            case Begun(item=item):
                return [*self.pause(), self._add(dict(item))]
            case Told(kind=kind, fields=fields):
                return [self._of_item(kind, **fields)]
            case Ended(item=item):
                assert self._open is not None, "an item begins before it ends"
                self._open.item = dict(item)
                return self._put_out(self._open)

    def pause(self) -> list[Json]:
        """What is being said has come to its end, the response has not."""
        return self._close("completed")

    def finish(
        self, reason: str, usage: Json, completed_at: int, *, left_out: int = 0
    ) -> list[Json]:
        """The model has ended, for this reason; so many of the oldest items it was not shown. What
        is still to tell is `end`."""
        is_cut = reason == "length"
        events = self._close("incomplete" if is_cut else "completed")
        self._status = "incomplete" if is_cut else "completed"
        self._end = {"usage": usage, **({"truncated_items": left_out} if left_out else {})}
        if is_cut:
            self._end["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self._end["completed_at"] = completed_at
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
        if self._open is None or self._open.item["type"] != kind:
            yield from self._close("completed")
            yield from self._begin(kind)
        opened = self._open
        assert opened is not None, "it has just been opened"
        shown = [_log_prob(entry) for entry in logprobs]
        opened.pieces.append(text)
        opened.logprobs += shown
        if kind == "reasoning":
            yield self._of_item("response.reasoning_text.delta", content_index=0, delta=text)
        else:
            yield self._of_item(
                "response.output_text.delta",
                content_index=0,
                delta=text,
                logprobs=[_response_log_prob(entry) for entry in shown],
            )

    def _begin(self, kind: str) -> Iterator[Json]:
        item: Json = {"id": new_id(kind), "type": kind, "status": "in_progress", "content": []}
        name, value = ("role", "assistant") if kind == "message" else ("summary", [])
        item[name] = value
        yield self._add(item)
        part = _part(kind, "", [])
        yield self._of_item("response.content_part.added", content_index=0, part=part)

    def _call(self, call: ToolCall) -> Iterator[Json]:
        if call.id is not None:
            yield from self._close("completed")
            yield self._add(_call_item(call, self._clients.get(call.name or "")))
            assert self._open is not None, "it has just been opened"
            if self._open.item["type"] == CUSTOM_CALL:
                self._open.input = CustomInput()
        if call.arguments:
            assert self._open is not None, "a call begins with its id"
            yield from self._argue(self._open, call.arguments)

    def _argue(self, opened: _Open, arguments: str) -> Iterator[Json]:
        """A piece of a call's arguments; of a custom tool's, the text that it adds to the input."""
        custom = opened.input
        piece = arguments if custom is None else custom.feed(arguments)
        if piece:
            kind = ARGUMENTS if custom is None else CUSTOM_INPUT
            opened.pieces.append(piece)
            yield self._of_item(f"response.{kind}.delta", delta=piece)

    def _add(self, item: Json) -> Json:
        self._open = _Open(item=item)
        return self._of_output("response.output_item.added", item=self._visible(item))

    def _close(self, status: str) -> list[Json]:
        """The open item, if there is one, is said to its end."""
        opened = self._open
        if opened is None:
            return []
        kind, text = opened.item["type"], opened.text
        if kind == "function_call":
            name = opened.item["name"]
            events = [self._of_item(f"response.{ARGUMENTS}.done", name=name, arguments=text)]
            opened.item["arguments"] = text
        elif opened.input is not None:
            events = self._end_of_input(opened, opened.input)
        elif kind in ("message", "reasoning"):
            events = self._end_of_text(opened, kind, text)
        else:
            events = []
        if "status" in opened.item:
            opened.item["status"] = status
        return events + self._put_out(opened)

    def _put_out(self, opened: _Open) -> list[Json]:
        item = self._visible(opened.item)
        events = [self._of_output("response.output_item.done", item=item)]
        self._output.append(opened.item)
        self._open = None
        return events

    def _visible(self, item: Json) -> Json:
        return shown_item(item, self._include)

    def _end_of_input(self, opened: _Open, custom: CustomInput) -> list[Json]:
        events = []
        if rest := custom.finish():
            opened.pieces.append(rest)
            events = [self._of_item(f"response.{CUSTOM_INPUT}.delta", delta=rest)]
        opened.item["input"] = opened.text
        return [*events, self._of_item(f"response.{CUSTOM_INPUT}.done", input=opened.text)]

    def _end_of_text(self, opened: _Open, kind: str, text: str) -> list[Json]:
        part = _part(kind, text, opened.logprobs)
        opened.item["content"] = [part]
        events = []
        if kind == "reasoning":
            events += [self._of_item("response.reasoning_text.done", content_index=0, text=text)]
        else:
            logprobs = [_response_log_prob(entry) for entry in opened.logprobs]
            part["annotations"] = list(self._annotate(text))
            events += [
                self._of_item(
                    "response.output_text.annotation.added",
                    content_index=0,
                    annotation_index=place,
                    annotation=annotation,
                )
                for place, annotation in enumerate(part["annotations"])
            ]
            events += [
                self._of_item(
                    "response.output_text.done", content_index=0, text=text, logprobs=logprobs
                )
            ]
        done = self._of_item("response.content_part.done", content_index=0, part=part)
        return [*events, done]

    def _of_item(self, kind: str, **fields: Any) -> Json:
        assert self._open is not None, "an item is open"
        return self._of_output(kind, item_id=self._open.item["id"], **fields)

    def _of_output(self, kind: str, **fields: Any) -> Json:
        return self._event(kind, output_index=len(self._output), **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event


def _call_item(call: ToolCall, tool: ClientTool | None) -> Json:
    """The item of a call that begins."""
    is_custom = tool is not None and tool.is_custom
    kind, content = (CUSTOM_CALL, "input") if is_custom else ("function_call", "arguments")
    item = {
        "id": new_id(kind),
        "type": kind,
        "status": "in_progress",
        "call_id": call.id,
        "name": call.name if tool is None else tool.name,
        content: "",
    }
    if tool is not None and tool.namespace is not None:
        item["namespace"] = tool.namespace
    return item


def _part(kind: str, text: str, logprobs: list[Json]) -> Json:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def _log_prob(entry: TokenLogprob) -> Json:
    top = [token_object(other) for other in entry.top]
    return {**token_object(entry), "top_logprobs": top}


def _response_log_prob(entry: Json) -> Json:
    """The same without bytes, as events have it."""
    top = [{"token": one["token"], "logprob": one["logprob"]} for one in entry["top_logprobs"]]
    return {"token": entry["token"], "logprob": entry["logprob"], "top_logprobs": top}
