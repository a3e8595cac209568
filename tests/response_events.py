"""Checks a response's events against the document and the legal order."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema_rs

from llm_backend.contract import load_document
from llm_backend.controllers.responses.input.chat_request import echoed_fields

__all__ = ["HEAD", "USAGE", "check_events"]

Event = Mapping[str, Any]

HEAD = {
    "id": "resp_1", "object": "response", "created_at": 1, "background": False,
    "conversation": None, **echoed_fields({"model": "m"}),
}  # fmt: skip
USAGE = {
    "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2,
}  # fmt: skip

ENDS = ("response.completed", "response.incomplete", "response.failed")
OPENING = ("response.created", "response.queued", "response.in_progress")
OF_PARTS = (
    "response.content_part.", "response.output_text.", "response.reasoning_text.",
    "response.refusal.",
)  # fmt: skip
# What comes in pieces (`delta`), and the field of the event that has all of it (`done`).
PIECES = {
    "output_text": "text",
    "reasoning_text": "text",
    "function_call_arguments": "arguments",
    "custom_tool_call_input": "input",
    "mcp_call_arguments": "arguments",
}


def check_events(events: Sequence[Event], *, first: int = 0, is_whole: bool = True) -> None:
    """Asserts that these are the events of one response from the `first` on. One that is not whole
    has been left, cancelled or broken off."""
    for event in events:
        _validator().validate(event)
    assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))
    if first == 0:
        _check_frame(events, is_whole=is_whole)
        _check_items(events, is_whole=is_whole)


@cache
def _validator() -> jsonschema_rs.Validator:
    document = json.loads(load_document().text())
    schema = {"$ref": "#/components/schemas/ResponseStreamEvent"}
    return jsonschema_rs.validator_for({**schema, "components": document["components"]})


def _check_frame(events: Sequence[Event], *, is_whole: bool) -> None:
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    opening = [kind for kind in kinds if kind in OPENING]
    assert opening == [kind for kind in OPENING if kind in opening]
    assert kinds[: len(opening)] == opening
    ends = [kind for kind in kinds if kind in ENDS]
    assert ends == kinds[-1:] if is_whole else not ends
    responses = [event["response"] for event in events if "response" in event]
    assert len({response["id"] for response in responses}) == 1


def _check_items(events: Sequence[Event], *, is_whole: bool) -> None:
    """Items are item_events one after the other: each is added, part_events of, and done."""
    done: list[Mapping[str, Any]] = []
    item_events: list[Event] = []  # of the item that is open, from its beginning on
    for event in events:
        if event["type"] == "response.output_item.added":
            assert not item_events
        elif "output_index" not in event:
            continue
        else:
            assert item_events, f"{event['type']} before its item was added"
        assert event["output_index"] == len(done)
        item_events.append(event)
        if event["type"] == "response.output_item.done":
            _check_item(item_events)
            done.append(event["item"])
            item_events = []
    if is_whole:
        assert not item_events
        assert events[-1]["response"]["output"] == done


def _check_item(item_events: Sequence[Event]) -> None:
    begun, *between, ended = item_events
    id = ended["item"]["id"]
    assert begun["item"]["id"] == id
    assert begun["item"]["type"] == ended["item"]["type"]
    assert all(event["item_id"] == id for event in between)
    parts = [event for event in between if event["type"].startswith(OF_PARTS)]
    if parts:
        assert parts[0]["type"] == "response.content_part.added"
        assert parts[-1]["type"] == "response.content_part.done"
        assert all(event["content_index"] == 0 for event in parts)
        assert parts[-1]["part"] == ended["item"]["content"][0]
    for name, field in PIECES.items():
        part_events = [event for event in between if event["type"].startswith(f"response.{name}.d")]
        if part_events:
            *pieces, whole = part_events
            assert whole["type"] == f"response.{name}.done"
            assert "".join(event["delta"] for event in pieces) == whole[field]
