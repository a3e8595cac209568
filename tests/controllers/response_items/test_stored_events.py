"""Stored events keep what they do not show, and show it to a client that asks for it."""

from llm_backend.controllers.response_items.stored_events import (
    from_stored_event,
    to_stored_event,
)

RESULTS = "file_search_call.results"
WHOLE = {"id": "fs_1", "type": "file_search_call", "queries": ["q"], "results": [{"text": "t"}]}
SHOWN = {**WHOLE, "results": None}
DONE = {"type": "response.output_item.done", "item": SHOWN}
END = {"type": "response.completed", "response": {"id": "resp_1", "output": [SHOWN]}}


def test_results_are_sent_to_a_client_that_includes_them():
    for event in (DONE, END):
        stored = to_stored_event(event, [WHOLE])

        assert from_stored_event(stored, ()) == event
        assert from_stored_event(stored, ["reasoning.encrypted_content"]) == event
    assert from_stored_event(to_stored_event(DONE, [WHOLE]), [RESULTS])["item"] == WHOLE
    told = from_stored_event(to_stored_event(END, [WHOLE]), [RESULTS])
    assert told["response"] == {"id": "resp_1", "output": [WHOLE]}


def test_results_included_by_the_request_are_sent_to_all():
    event = {**DONE, "item": WHOLE}
    stored = to_stored_event(event, [WHOLE])

    assert stored == event
    assert from_stored_event(stored, ()) == event


def test_an_event_without_items_stays_as_it_is():
    event = {"type": "response.output_text.delta", "delta": "a"}

    assert from_stored_event(to_stored_event(event, [WHOLE]), [RESULTS]) == event
