"""Response events come in legal order and add up to the response, whatever the model says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.response_items.compaction_items import begin_compaction
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.services.server_tools import CallBegan, CallProgress
from llm_backend.engine.messages import TokenLogprob
from llm_backend.errors import Internal, InvalidRequest, RateLimited, ServiceUnavailable
from tests.response_events import HEAD, USAGE, check_events

LOGPROB = TokenLogprob(token=1, bytes=b"a", logprob=-0.5, top=[])

calls = st.integers(0, 3).flatmap(
    lambda index: st.sampled_from(
        [
            (ToolCall(index=index, id=f"call_{index}", name="f"),),
            (ToolCall(index=index, id=f"call_{index}", name="f", arguments="{}"),),
        ]
    )
)
deltas = st.lists(
    st.one_of(
        st.builds(ChatDelta, choice=st.just(0), content=st.text("abc ", min_size=1, max_size=3)),
        st.builds(ChatDelta, choice=st.just(0), reasoning=st.text("xyz", min_size=1, max_size=3)),
        st.builds(ChatDelta, choice=st.just(0), tool_calls=calls),
        st.just(ChatDelta(choice=0, content="a", logprobs=[LOGPROB])),
        st.just(ChatDelta(choice=0, reasoning="x", logprobs=[LOGPROB])),
        st.just(ChatDelta(choice=0, logprobs=[LOGPROB])),
    ),
    max_size=12,
)


def told(said, reason="stop"):
    state = ResponseState(HEAD)
    events = state.start()
    for delta in said:
        events += state.add_delta(delta)
    events += [*state.finish(reason, USAGE, 2), state.end()]
    return events, state.response


@given(deltas, st.sampled_from(["stop", "length"]))
def test_events_follow_the_document_for_any_deltas(said, reason):
    events, response = told(said, reason)

    check_events(events)
    assert events[-1]["response"] == response


def test_an_answer_that_was_cut_is_incomplete():
    events, response = told([ChatDelta(choice=0, content="so")], "length")

    assert events[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"


def test_a_failed_response_keeps_its_output():
    state = ResponseState(HEAD)
    state.start()
    state.add_delta(ChatDelta(choice=0, content="so"))
    state.fail(Internal("It broke."))

    assert state.end()["type"] == "response.failed"
    assert state.response["error"] == {"code": "server_error", "message": "It broke."}
    assert state.response["output"][0]["content"][0]["text"] == "so"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RateLimited("Wait."), "rate_limit_exceeded"),
        (InvalidRequest("No."), "invalid_prompt"),
        (ServiceUnavailable("Later."), "server_error"),
    ],
    ids=["limit", "prompt", "server"],
)
def test_a_failed_response_has_the_documents_code(error, code):
    state = ResponseState(HEAD)
    events = [*state.start(), *state.fail(error), state.end()]

    check_events(events)
    assert state.response["error"]["code"] == code


def test_a_compaction_that_broke_off_is_no_output():
    state = ResponseState(HEAD)
    events = state.start()
    events += state.add_tool_event(CallBegan(item=begin_compaction()))
    events += state.add_tool_event(CallProgress(kind="response.compaction.compacting"))
    events += [*state.fail(Internal("It broke.")), state.end()]

    assert [event["type"] for event in events[2:]] == [
        "response.output_item.added", "response.compaction.compacting", "response.failed",
    ]  # fmt: skip
    assert state.response["output"] == []


def test_an_image_call_that_broke_off_has_failed():
    image = {"id": "ig_1", "type": "image_generation_call", "status": "generating", "result": None}
    state = ResponseState(HEAD)
    events = state.start()
    events += state.add_tool_event(CallBegan(item=image))
    events += [*state.fail(Internal("It broke.")), state.end()]

    check_events(events)
    assert state.response["output"] == [{**image, "status": "failed"}]


def test_the_logprobs_of_reasoning_open_no_message():
    thought = ChatDelta(choice=0, reasoning="a", logprobs=[LOGPROB])
    _, response = told([thought, thought, ChatDelta(choice=0, content="so")])

    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]


def test_a_response_that_could_not_be_stored_fails_with_contiguous_numbers():
    state = ResponseState(HEAD)
    events = [*state.start(), *state.add_delta(ChatDelta(choice=0, content="so"))]
    events += [
        *state.finish("stop", USAGE, 2),
        *state.fail(ServiceUnavailable("It was not stored.")),
        state.end(),
    ]

    check_events(events)
    assert events[-1]["type"] == "response.failed"


def test_logprobs_are_in_the_events_and_in_the_text():
    events, response = told([ChatDelta(choice=0, content="a", logprobs=[LOGPROB])])
    (delta,) = [event for event in events if event["type"] == "response.output_text.delta"]

    assert delta["logprobs"] == [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    assert response["output"][0]["content"][0]["logprobs"][0]["bytes"] == [97]
