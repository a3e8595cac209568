"""Items of realtime sessions as input of the model."""

import weakref

import pytest

from llm_backend.controllers.generation.tool_call_ids import check_items
from llm_backend.controllers.realtime.conversation import (
    FIRST,
    Conversation,
    SpokenSentence,
    check_item,
    model_input,
)
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.errors import InvalidRequest, TooLarge


def test_an_image_is_read_by_its_address_alone():
    image = {"type": "input_image", "image_url": "data:,x", "file_id": "file-1", "detail": None}
    item = {"type": "message", "role": "user", "content": [image]}

    (read,) = model_input([item])

    assert read["content"] == [{"type": "input_image", "image_url": "data:,x", "detail": "auto"}]


IMAGE = {"type": "input_image", "detail": "auto"}
UNREAD = [
    ({**IMAGE, "image_url": "data:,x", "file_id": "file-1"}, "file_id"),
    ({**IMAGE, "file_id": "file-1"}, "image_url"),
    ({"type": "input_file", "file_id": "file-1"}, "type"),
]


@pytest.mark.parametrize(("part", "field"), UNREAD)
def test_files_by_their_ids_are_refused_in_items(part, field):
    item = {"type": "message", "role": "user", "content": [part]}

    with pytest.raises(InvalidRequest) as refused:
        check_item(item, "item")

    assert refused.value.param == f"item.content[0].{field}"


@pytest.mark.parametrize(("part", "field"), UNREAD)
@pytest.mark.parametrize(("where", "others"), [("session", {"type": "realtime"}), ("response", {})])
def test_files_by_their_ids_are_refused_in_variables_of_prompts(part, field, where, others):
    config = SessionConfig.default("builtin", Capabilities())
    change = config.apply if where == "session" else config.for_response
    prompt = {"id": "greeting", "variables": {"name": "Ada", "shown": part}}

    with pytest.raises(InvalidRequest) as refused:
        change({**others, "prompt": prompt})

    assert refused.value.param == f"{where}.prompt.variables.shown.{field}"


def test_id_that_means_the_beginning_of_the_conversation_is_refused():
    item = {"id": FIRST, "type": "message", "role": "user", "content": []}

    with pytest.raises(InvalidRequest) as refused:
        check_item(item, "item")

    assert refused.value.param == "item.id"


def test_text_and_addresses_of_images_are_variables_of_prompts():
    shown = {**IMAGE, "image_url": "data:,x"}
    prompt = {"id": "p", "variables": {"a": "b", "c": {"type": "input_text", "text": "d"},
                                       "shown": shown}}  # fmt: skip

    config = SessionConfig.default("builtin", Capabilities()).apply(
        {"type": "realtime", "prompt": prompt}
    )

    assert config.request_body([])["prompt"] == prompt


def test_an_answer_that_is_truncated_while_it_is_spoken_ends_with_what_was_heard():
    conversation = Conversation(limit_bytes=1000, nodes_limit=100)
    item = {"id": "a", "type": "message", "role": "assistant", "status": "in_progress",
            "content": []}  # fmt: skip
    sentences = [SpokenSentence(text="One two. ", duration_ms=200)]
    conversation.add(item)
    conversation.add_audio("a", sentences)
    conversation.truncate("a", 200)
    before = list(item["content"])
    sentences.append(SpokenSentence(text="Three four.", duration_ms=200))
    written = {"type": "output_audio", "transcript": "One two. Three four."}
    item |= {"status": "completed", "content": [written]}
    conversation.update(item)

    assert before == []
    assert item["content"] == [{"type": "output_audio", "transcript": "One two."}]


def test_an_answer_that_is_deleted_before_it_is_spoken_leaves_nothing():
    class Sentences(list[SpokenSentence]):
        """A list to which a weak reference can be made."""

    conversation = Conversation(limit_bytes=1000, nodes_limit=100)
    conversation.add({"id": "a", "type": "message", "role": "assistant", "content": []})
    conversation.delete("a")
    sentences = Sentences()
    held = weakref.ref(sentences)
    conversation.add_audio("a", sentences)
    del sentences

    assert held() is None


def test_a_truncated_answer_does_not_grow_again():
    conversation = Conversation(limit_bytes=1000, nodes_limit=100)
    item = {"id": "a", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_audio", "transcript": "One two. Three."}]}  # fmt: skip
    sentences = [SpokenSentence(text=text, duration_ms=200) for text in ("One two. ", "Three.")]
    conversation.add(item)
    conversation.add_audio("a", sentences)
    conversation.truncate("a", 200)

    with pytest.raises(InvalidRequest, match="200 ms") as refused:
        conversation.truncate("a", 300)
    assert refused.value.param == "audio_end_ms"
    assert item["content"] == [{"type": "output_audio", "transcript": "One two."}]
    conversation.truncate("a", 100)
    assert item["content"] == [{"type": "output_audio", "transcript": "One"}]


def call(number: int) -> dict:
    return {"id": f"a{number}", "type": "function_call", "call_id": f"c{number}", "name": "f"}


def output(number: int) -> dict:
    return {"id": f"o{number}", "type": "function_call_output", "call_id": f"c{number}"}


def test_a_conversation_holds_values_up_to_a_number_however_few_bytes_they_have():
    conversation = Conversation(limit_bytes=10_000, nodes_limit=27)
    for number in range(3):
        conversation.add(call(number))  # 9 values and names each
    with pytest.raises(TooLarge) as refused:
        conversation.add(call(3))
    conversation.delete("a0")
    conversation.add(call(3))

    assert "json_nodes_limit" in refused.value.message
    assert [one["id"] for one in conversation] == ["a1", "a2", "a3"]


def test_outputs_that_are_deleted_with_their_call_leave_room():
    conversation = Conversation(limit_bytes=10_000, nodes_limit=16)
    for _ in range(3):
        conversation.add(call(1))
        conversation.add(output(1))
        assert conversation.delete("a1") == ["a1", "o1"]

    assert list(conversation) == []


def test_the_id_before_an_added_item_is_that_of_its_place():
    conversation = Conversation(limit_bytes=10_000, nodes_limit=100)
    before = [conversation.add(call(1)), conversation.add(call(2)), conversation.add(call(3), "a1")]

    assert before == [None, "a1", "a1"]
    assert conversation.add(call(4), FIRST) is None
    with pytest.raises(InvalidRequest):
        conversation.add(output(3), "a1")  # before its call
    assert conversation.add(output(3), "a3") == "a3"


def test_a_call_whose_output_is_missing_is_read_as_one_that_needs_none():
    calls = [{**call(number), "arguments": "{}", "status": "completed"} for number in (1, 2)]

    read = model_input([*calls, {**output(1), "output": "x"}])

    check_items((), read)
    assert [one.get("status") for one in read] == ["completed", "incomplete", None]
    assert [one["status"] for one in calls] == ["completed", "completed"]


def test_nulls_end_fields_of_audio():
    named = {"input": {"transcription": {"model": "hello"}, "noise_reduction": None}}
    ended = {"input": {"transcription": None, "turn_detection": None}}
    config = SessionConfig.default("builtin", Capabilities(detects_turns=True))
    config = config.apply({"type": "realtime", "audio": named})
    before = config.transcription
    audio = config.apply({"type": "realtime", "audio": ended}).fields["audio"]["input"]

    assert before == {"model": "hello"}
    assert audio == {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": None}


def test_a_cloned_voice_is_an_object_in_requests_and_its_id_in_answers():
    voice = {"output": {"voice": {"id": "voice_1"}}}
    config = SessionConfig.default("builtin", Capabilities())
    config = config.apply({"type": "realtime", "audio": voice})

    assert config.speech["voice"] == {"id": "voice_1"}
    assert config.public_fields["audio"]["output"]["voice"] == "voice_1"
    assert config.public_fields["audio"]["input"] == config.fields["audio"]["input"]


@pytest.mark.parametrize("name", ["id", "call_id"])
def test_an_id_has_at_most_64_characters(name):
    item = {**call(1), "arguments": "{}", name: "x" * 64}

    check_item(item, "item")
    with pytest.raises(InvalidRequest) as refused:
        check_item(item | {name: "x" * 65}, "item")
    assert refused.value.param == f"item.{name}"
