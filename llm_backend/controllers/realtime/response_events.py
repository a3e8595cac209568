"""Events of `/responses` as realtime events. Pure, except that it generates ids of items.

Reasoning is left out: the document has no such items in realtime sessions.
"""

import base64
from collections.abc import Sequence
from typing import Any, Literal

from llm_backend.controllers.realtime.conversation import Conversation, new_item_id
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.json_types import JsonMapping, JsonObject

CancelReason = Literal["client_cancelled", "turn_detected"]

_CALL_DONE = "response.function_call_arguments.done"


class ResponseEvents:
    """State of one response. Its items are added to `conversation`, unless that is None."""

    def __init__(self, id: str, config: SessionConfig, conversation: Conversation | None) -> None:
        self.id = id
        self._config = config
        self._conversation = conversation
        self._output: list[JsonObject] = []
        self._item: JsonObject | None = None  # unfinished output item
        self._text: list[str] = []  # of the item, or its arguments
        self._due: Sequence[str] = ()  # types of the events that end the parts of the item
        self._status = "in_progress"
        self._details: JsonObject | None = None
        self._usage: JsonObject | None = None

    @property
    def is_over(self) -> bool:
        """True once the answer has ended."""
        return self._status != "in_progress"

    @property
    def message_id(self) -> str | None:
        """The id of the message that is being written."""
        item = self._item
        return item["id"] if item is not None and item["type"] == "message" else None

    def begin(self) -> JsonObject:
        """Returns the first event."""
        return {"type": "response.created", "response": self._response()}

    def end(self) -> JsonObject:
        """Returns the last event."""
        return {"type": "response.done", "response": self._response()}

    def add(self, event: JsonMapping) -> Sequence[JsonObject]:
        """Returns the events for an event of `/responses`."""
        self._due = [one for one in self._due if one != event["type"]]
        match event["type"]:
            case "response.output_item.added":
                return self._begin_item(event["item"])
            case "response.content_part.added":
                kind = event["part"]["type"]
                self._due = [f"response.{kind}.done", "response.content_part.done"]
                return self._part("response.content_part.added", "")
            case "response.output_text.delta" | "response.refusal.delta":
                return self._add_text(event["delta"])
            case "response.output_text.done" | "response.refusal.done":
                return self._finish_text()
            case "response.content_part.done":
                return self._part("response.content_part.done", "".join(self._text))
            case "response.function_call_arguments.delta":
                self._text.append(event["delta"])
                return self._call("response.function_call_arguments.delta", delta=event["delta"])
            case "response.function_call_arguments.done":
                return self._finish_call(event["arguments"])
            case "response.output_item.done":
                return self._close_item(event["item"].get("status", "completed"))
            case _:
                self._add_end(event)
        return ()

    def _add_end(self, event: JsonMapping) -> None:
        match event["type"]:
            case "response.completed":
                self._finish("completed", event["response"])
            case "response.incomplete":
                reason = event["response"]["incomplete_details"]["reason"]
                self._finish("incomplete", event["response"], reason=reason)

    def cancel(self, reason: CancelReason) -> Sequence[JsonObject]:
        """Cancels the response and returns the events of the item that was not finished."""
        events = self._cut_item()
        self._finish("cancelled", {}, reason=reason)
        return events

    def fail(self, error: JsonMapping) -> Sequence[JsonObject]:
        """Fails the response with an error object and returns the events of the item that was not
        finished."""
        events = self._cut_item()
        cause = {"type": error.get("type") or "server_error", "code": error.get("code") or ""}
        self._finish("failed", {}, error=cause)
        return events

    def _begin_item(self, item: JsonMapping) -> Sequence[JsonObject]:
        begun: JsonObject = {
            "id": new_item_id(),
            "object": "realtime.item",
            "type": item["type"],
            "status": "in_progress",
        }
        match item["type"]:
            case "message":
                begun |= {"role": "assistant", "content": []}
            case "function_call":
                begun |= {"name": item["name"], "call_id": item["call_id"], "arguments": ""}
            case _:
                return ()
        events = [self._output_event("response.output_item.added", item=dict(begun))]
        if self._conversation is not None:
            previous = self._conversation.add(begun)  # may raise `TooLarge`: nothing has begun then
            events.append(_item_event("conversation.item.added", begun, previous))
        self._item, self._text = begun, []
        self._due = [_CALL_DONE] if item["type"] == "function_call" else ()
        return events

    def _cut_item(self) -> Sequence[JsonObject]:
        """Ends the unfinished item, and its parts, as far as they are."""
        so_far = "".join(self._text)
        due = [{"type": kind, "arguments": so_far} for kind in self._due]
        events = [event for one in due for event in self.add(one)]
        return [*events, *self._close_item("incomplete")]

    def _close_item(self, status: str) -> Sequence[JsonObject]:
        item = self._item
        if item is None:
            return ()
        if item["type"] == "message":
            item["content"] = [self._content()] if self._text else []
        item["status"] = status
        events = []
        if self._conversation is not None:
            self._conversation.update(item)
            if item["id"] in self._conversation:  # else it was deleted meanwhile
                previous = self._conversation.id_before(item["id"])
                events.append(_item_event("conversation.item.done", item, previous))
        events.append(self._output_event("response.output_item.done", item=dict(item)))
        self._output.append(item)
        self._item = None
        return events

    def _content(self) -> JsonObject:
        text = "".join(self._text)
        if self._config.speaks:
            return {"type": "output_audio", "transcript": text}
        return {"type": "output_text", "text": text}

    def _part(self, kind: str, text: str) -> Sequence[JsonObject]:
        spoken, written = {"type": "audio", "transcript": text}, {"type": "text", "text": text}
        return self._content_event(kind, part=spoken if self._config.speaks else written)

    def _add_text(self, delta: str) -> Sequence[JsonObject]:
        self._text.append(delta)
        kind = "output_audio_transcript" if self._config.speaks else "output_text"
        return self._content_event(f"response.{kind}.delta", delta=delta)

    def add_audio(self, audio: bytes) -> JsonObject:
        """Returns the event of a piece of the audio of the message."""
        (event,) = self._content_event(
            "response.output_audio.delta", delta=base64.b64encode(audio).decode()
        )
        return event

    def _finish_text(self) -> Sequence[JsonObject]:
        text = "".join(self._text)
        if not self._config.speaks:
            return self._content_event("response.output_text.done", text=text)
        transcript = self._content_event("response.output_audio_transcript.done", transcript=text)
        return [*self._content_event("response.output_audio.done"), *transcript]

    def _finish_call(self, arguments: str) -> Sequence[JsonObject]:
        if self._item is None:
            return ()
        self._item["arguments"] = arguments
        fields = {"name": self._item["name"], "arguments": arguments}
        return self._call("response.function_call_arguments.done", **fields)

    def _call(self, kind: str, **fields: Any) -> Sequence[JsonObject]:
        if self._item is None:
            return ()
        ids = {"item_id": self._item["id"], "call_id": self._item["call_id"]}
        return [self._output_event(kind, **ids, **fields)]

    def _content_event(self, kind: str, **fields: Any) -> Sequence[JsonObject]:
        if self._item is None:  # the event is about reasoning
            return ()
        return [self._output_event(kind, item_id=self._item["id"], content_index=0, **fields)]

    def _output_event(self, kind: str, **fields: Any) -> JsonObject:
        ids = {"response_id": self.id, "output_index": len(self._output)}
        return {"type": kind, **ids, **fields}

    def _finish(self, status: str, response: JsonMapping, **details: Any) -> None:
        self._status = status
        if status != "completed":
            self._details = {"type": status, **details}
        if usage := response.get("usage"):
            self._usage = _usage(usage)

    def _response(self) -> JsonObject:
        fields = self._config.fields
        response: JsonObject = {
            "object": "realtime.response",
            "id": self.id,
            "status": self._status,
            "output": list(self._output),
            "output_modalities": fields["output_modalities"],
            "max_output_tokens": fields["max_output_tokens"],
            "metadata": fields.get("metadata"),
        }
        if self._config.speaks:
            output_format, voice = self._config.output["format"], self._config.voice_id
            response["audio"] = {"output": {"format": output_format, "voice": voice}}
        if self._conversation is not None:
            response["conversation_id"] = self._conversation.id
        if self._details is not None:
            response["status_details"] = self._details
        if self._usage is not None:
            response["usage"] = self._usage
        return response


def _item_event(kind: str, item: JsonMapping, previous_item_id: str | None) -> JsonObject:
    return {"type": kind, "previous_item_id": previous_item_id, "item": dict(item)}


def _usage(usage: JsonMapping) -> JsonObject:
    """Returns the usage of `/responses` in the realtime form."""
    cached = usage["input_tokens_details"]["cached_tokens"]
    texts = {"text_tokens": usage["input_tokens"], "audio_tokens": 0, "image_tokens": 0}
    cached_texts = {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": usage["total_tokens"],
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "input_token_details": {
            **texts, "cached_tokens": cached, "cached_tokens_details": cached_texts,
        },
        "output_token_details": {"text_tokens": usage["output_tokens"], "audio_tokens": 0},
    }  # fmt: skip
