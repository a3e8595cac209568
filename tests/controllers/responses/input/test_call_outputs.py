"""Outputs of calls stand behind the message with the calls, as templates and upstreams want."""

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.controllers.generation.tool_call_ids import check_messages
from llm_backend.controllers.responses.input.call_outputs import NO_OUTPUT, join_outputs

USER = {"role": "user", "content": "And?"}
TEXT = {"role": "assistant", "content": "Wait."}


def calls(*ids):
    function = {"name": "f", "arguments": "{}"}
    made = [{"id": id, "type": "function", "function": function} for id in ids]
    return {"role": "assistant", "tool_calls": made}


def output(id, text="42"):
    return {"role": "tool", "tool_call_id": id, "content": text}


def test_outputs_follow_the_message_of_their_calls():
    given_messages = [calls("a", "b"), output("b"), calls("c"), output("c"), USER, output("a")]

    assert join_outputs(given_messages) == [
        calls("a", "b"), output("b"), output("a"), calls("c"), output("c"), USER,
    ]  # fmt: skip


def test_text_after_a_call_follows_its_output():
    assert join_outputs([calls("a"), TEXT, output("a")]) == [calls("a"), output("a"), TEXT]


def test_a_call_without_an_output_has_one_that_states_it():
    assert join_outputs([calls("a", "b"), output("a"), USER]) == [
        calls("a", "b"), output("a"), output("b", NO_OUTPUT), USER,
    ]  # fmt: skip


def test_calls_with_one_id_keep_their_own_outputs():
    said = [calls("a"), USER, calls("a"), output("a", "second")]

    assert join_outputs(said) == [
        calls("a"), output("a", NO_OUTPUT), USER, calls("a"), output("a", "second"),
    ]  # fmt: skip


def test_messages_in_order_are_unchanged():
    said = [output("z"), USER, calls("a"), output("a", "1"), output("a", "2"), TEXT]

    assert join_outputs(said) == said


_MESSAGES = st.one_of(
    st.sampled_from([USER, TEXT]),
    st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(lambda ids: calls(*ids)),
)


@given(st.lists(_MESSAGES), st.randoms(use_true_random=False))
def test_joined_messages_are_those_of_a_valid_chat(said, random):
    with_outputs = list(said)
    for index in reversed(range(len(said))):
        for call in said[index].get("tool_calls", ()):
            if random.random() < 0.7:
                place = random.randint(index + 1, len(with_outputs))
                with_outputs.insert(place, output(call["id"]))
    joined = join_outputs(with_outputs)

    check_messages(joined)
    assert [one for one in joined if one in said] == said
