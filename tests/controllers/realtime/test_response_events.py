"""Events of realtime responses, from the events of `/responses`."""

import pytest

from llm_backend.controllers.realtime.conversation import Conversation
from llm_backend.controllers.realtime.response_events import ResponseEvents
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.errors import TooLarge

MESSAGE = {"type": "message"}
CALL = {"type": "function_call", "name": "f", "call_id": "call_1"}


@pytest.mark.parametrize("item", [MESSAGE, CALL])
def test_an_item_over_the_limit_of_the_conversation_has_no_events(item):
    conversation = Conversation(limit_bytes=50, nodes_limit=1000)
    config = SessionConfig.default("builtin", Capabilities())
    events = ResponseEvents("resp_1", config, conversation)

    with pytest.raises(TooLarge):
        events.add({"type": "response.output_item.added", "item": item})

    assert list(events.fail({"type": "invalid_request_error"})) == []
    assert events.end()["response"]["output"] == list(conversation) == []


BEGUN = [
    {"type": "response.output_item.added", "item": MESSAGE},
    {"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}},
    {"type": "response.output_text.delta", "delta": "Hel"},
]
BEGUN_CALL = [
    {"type": "response.output_item.added", "item": CALL},
    {"type": "response.function_call_arguments.delta", "delta": '{"a"'},
]


@pytest.mark.parametrize(
    ("changes", "sent", "ends"),
    [
        ({"output_modalities": ["text"]}, BEGUN, [
            ("response.output_text.done", {"text": "Hel"}),
            ("response.content_part.done", {"part": {"type": "text", "text": "Hel"}}),
        ]),
        ({}, BEGUN, [
            ("response.output_audio.done", {}),
            ("response.output_audio_transcript.done", {"transcript": "Hel"}),
            ("response.content_part.done", {"part": {"type": "audio", "transcript": "Hel"}}),
        ]),
        ({}, [*BEGUN, {"type": "response.output_text.done"}], [
            ("response.content_part.done", {"part": {"type": "audio", "transcript": "Hel"}}),
        ]),
        ({}, BEGUN[:1], []),
        ({}, BEGUN_CALL, [
            ("response.function_call_arguments.done", {"name": "f", "arguments": '{"a"'}),
        ]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_cancelled", [True, False])
def test_an_item_that_is_cut_has_all_its_last_events(changes, sent, ends, is_cancelled):
    config = SessionConfig.default("builtin", Capabilities()).for_response(changes)
    events = ResponseEvents("resp_1", config, None)
    for event in sent:
        events.add(event)

    cut = events.cancel("client_cancelled") if is_cancelled else events.fail({})

    assert [one["type"] for one in cut] == [
        *(kind for kind, _ in ends),
        "response.output_item.done",
    ]
    for event, (_, fields) in zip(cut, ends, strict=False):
        assert event.items() >= fields.items()
    assert cut[-1]["item"]["status"] == "incomplete"


def test_an_item_that_is_done_names_the_item_before_it_unless_it_was_deleted():
    conversation = Conversation(limit_bytes=10_000, nodes_limit=1000)
    first = {"id": "first", "type": "message", "role": "user", "content": []}
    conversation.add(first)
    events = ResponseEvents(
        "resp_1", SessionConfig.default("builtin", Capabilities()), conversation
    )
    done = {"type": "response.output_item.done", "item": MESSAGE}

    events.add(BEGUN[0])
    kept = events.add(done)
    _, added = events.add(BEGUN[0])
    conversation.delete(added["item"]["id"])
    deleted = events.add(done)

    assert kept[0]["type"] == "conversation.item.done"
    assert kept[0]["previous_item_id"] == "first"
    assert [one["type"] for one in deleted] == ["response.output_item.done"]
