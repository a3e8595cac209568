"""Responses and conversations, driven by the official client."""

import base64
import json
import re
import time

import httpx
import openai
import pytest

from tests.response_events import check_events
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def answer(client, asked, **fields):
    return client.responses.create(model="builtin", input=asked, temperature=0, **fields)


def test_items_that_are_echoed_in_part_are_listed_whole_or_refused(client):
    asked = {"role": "user", "content": [{"type": "output_text", "text": "Hello!"}]}
    said = answer(client, [asked, {"type": "reasoning"}, {"type": "reasoning", "status": None}])
    items = client.responses.input_items.list(said.id, order="asc").data
    for store in (True, False):
        with pytest.raises(openai.BadRequestError) as refused:
            answer(client, [asked, {"type": "reasoning", "summary": "none"}], store=store)
        assert refused.value.param == "input[1].summary"

    assert [item.type for item in items] == ["message", "reasoning", "reasoning"]
    assert items[0].content[0].type == "input_text"


def test_a_response_is_answered_kept_and_forgotten(client):
    said = answer(client, "Hello!", metadata={"topic": "greeting"})
    kept = client.responses.retrieve(said.id)
    (asked,) = client.responses.input_items.list(said.id)
    client.responses.delete(said.id)

    assert said.status == "completed"
    assert said.output_text
    assert said.usage.total_tokens == said.usage.input_tokens + said.usage.output_tokens
    assert kept == said
    assert asked.content[0].text == "Hello!"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(said.id)


def test_a_streamed_response_equals_the_whole_one(client):
    whole = answer(client, "Hello!")
    with answer(client, "Hello!", stream=True) as stream:
        events = list(stream)

    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text == whole.output_text == events[-1].response.output_text
    assert events[-1].type == "response.completed"
    assert client.responses.retrieve(events[-1].response.id).output_text == text


@pytest.mark.parametrize(
    "fields",
    [
        {"max_output_tokens": 16},
        {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"tools": [{"type": "custom", "name": "run"}], "tool_choice": "required"},
        {"tools": [{"type": "namespace", "name": "sky", "description": "", "tools": [WEATHER]}],
         "tool_choice": "required"},
        {"background": True},
    ],
)  # fmt: skip
def test_events_have_their_names_and_come_in_legal_order(server, fields):
    body = {"model": "builtin", "input": "How is it in Oslo?", "stream": True, **fields}
    text = httpx.post(f"{server.base_url}/responses", json=body, timeout=60).text
    told = [event.split("\n") for event in text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in told]

    assert "[DONE]" not in text
    assert [name for name, _ in told] == [f"event: {event['type']}" for event in events]
    check_events(events)


def test_the_clients_stream_helper_reads_a_response(client):
    with client.responses.stream(model="builtin", input="Hello!") as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        final = stream.get_final_response()

    assert final.output_text == text != ""


def test_a_response_goes_on_from_the_one_before(client):
    first = answer(client, "Hello!")
    alone = answer(client, "What is 2 + 3?")
    second = answer(client, "What is 2 + 3?", previous_response_id=first.id)

    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > alone.usage.input_tokens + first.usage.output_tokens


def test_a_conversation_keeps_its_items(client):
    conversation = client.conversations.create(
        items=[{"role": "user", "content": "Hi"}], metadata={"a": "b"}
    )
    said = answer(client, "What is 2 + 3?", conversation=conversation.id)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    client.conversations.items.delete(items[0].id, conversation_id=conversation.id)
    left = list(client.conversations.items.list(conversation.id))
    client.conversations.delete(conversation.id)

    assert [item.content[0].text for item in items] == ["Hi", "What is 2 + 3?", said.output_text]
    assert len(left) == 2
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


def test_items_are_added_to_a_conversation_got_and_labelled(client):
    conversation = client.conversations.create(metadata={"topic": "cats"})
    added = client.conversations.items.create(
        conversation.id,
        items=[{"role": "user", "content": "One"}, {"role": "user", "content": "Two"}],
    )
    got = client.conversations.items.retrieve(added.data[1].id, conversation_id=conversation.id)
    changed = client.conversations.update(conversation.id, metadata={"topic": "dogs"})

    assert [item.content[0].text for item in added.data] == ["One", "Two"]
    assert got == added.data[1]
    assert changed.metadata == {"topic": "dogs"}
    assert client.conversations.retrieve(conversation.id) == changed
    for ask in (client.conversations.items.retrieve, client.conversations.items.delete):
        with pytest.raises(openai.NotFoundError, match=f"`{conversation.id}` has no item.*`msg_x`"):
            ask("msg_x", conversation_id=conversation.id)
        with pytest.raises(openai.NotFoundError, match="No conversation has the id `conv_x`"):
            ask(added.data[1].id, conversation_id="conv_x")


def test_a_tool_is_called_and_its_output_answered(client):
    called = answer(client, "What is the weather in Oslo?", tools=[WEATHER], tool_choice="required")
    (call,) = called.output
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    said = answer(client, [output], previous_response_id=called.id, tools=[WEATHER])

    assert call.type == "function_call"
    assert isinstance(json.loads(call.arguments)["city"], str)
    assert said.output_text


@pytest.mark.parametrize("goes_on_by", ["input", "previous_response_id", "conversation"])
def test_a_call_and_its_output_are_missed_where_the_other_is(client, goes_on_by):
    function = {"type": "function", "name": "look", "parameters": {"type": "object"}}
    asked = {"model": "builtin", "tools": [function], "tool_choice": "required"}
    asked |= {"parallel_tool_calls": False, "input": "Look."}
    output = {"type": "function_call_output", "call_id": "call_other", "output": "1"}
    more = {}
    if goes_on_by == "conversation":
        more = {"conversation": client.conversations.create().id}
    called = client.responses.create(**asked, **more)
    (call,) = called.output
    before = [{"role": "user", "content": "Look."}, call.model_dump(exclude_none=True)]
    if goes_on_by == "previous_response_id":
        more = {"previous_response_id": called.id}
    if goes_on_by != "input":
        before = []
    with pytest.raises(openai.BadRequestError) as unanswered:
        client.responses.create(
            model="builtin", **more, input=[*before, {"role": "user", "content": "Hi."}]
        )
    with pytest.raises(openai.BadRequestError) as uncalled:
        client.responses.create(model="builtin", **more, input=[*before, output])
    output["call_id"] = call.call_id
    said = client.responses.create(
        model="builtin", **more, input=[*before, output], max_output_tokens=16
    )

    assert f"No tool output found for function call {call.call_id}." in str(unanswered.value)
    assert "No tool call found for function call output with call_id call_other." in str(
        uncalled.value
    )
    assert (unanswered.value.param, uncalled.value.param) == (
        "input", f"input[{len(before)}].call_id",
    )  # fmt: skip
    assert said.status in ("completed", "incomplete")


def test_a_custom_tools_input_follows_its_format(client):
    form = {"type": "grammar", "syntax": "regex", "definition": '[a-z]{3} "[0-9]{2}"'}
    tool = {"type": "custom", "name": "run", "description": "Runs a command.", "format": form}
    choice = {"type": "custom", "name": "run"}
    with answer(client, "Run it.", tools=[tool], tool_choice=choice, stream=True) as stream:
        *_, done, _, last = stream
    (call,) = last.response.output
    output = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "It ran."}
    said = answer(client, [output], previous_response_id=last.response.id, tools=[tool])

    assert done.type == "response.custom_tool_call_input.done"
    assert re.fullmatch(form["definition"], call.input)
    assert done.input == call.input
    assert said.status == "completed"


def test_a_model_that_is_not_named_is_missed_like_any_other_field(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/responses", body={"input": "Hi"}, cast_to=object)

    assert (refused.value.param, refused.value.code) == ("model", "missing_required_parameter")


def test_a_hosted_tool_is_refused_by_its_name(client):
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, "Hello!", tools=[{"type": "web_search"}])

    assert refused.value.param == "tools[0].type"
    assert "web_search" in refused.value.message


def test_a_text_format_is_kept(client):
    schema = {
        "type": "object",
        "properties": {"sum": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "sum", "schema": schema}
    said = answer(client, "What is 2 + 3?", text={"format": form}, max_output_tokens=200)

    assert said.text.format.name == "sum"
    assert said.status == "completed"
    assert json.loads(said.output_text)["sum"] in range(10)


def test_items_can_be_named_instead_of_sent(client):
    first = answer(client, "Hello!")
    (asked,) = client.responses.input_items.list(first.id)
    again = answer(client, [{"type": "item_reference", "id": asked.id}])

    assert again.output_text == first.output_text


def test_input_tokens_are_counted_without_answering(client):
    said = answer(client, "Hello!")
    counted = client.responses.input_tokens.count(model="builtin", input="Hello!")

    assert counted.input_tokens == said.usage.input_tokens


@pytest.mark.parametrize("item", [{"id": "x"}, {"id": "x", "type": None, "content": "hi"}])
def test_an_item_that_only_names_another_must_name_one(client, item):
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, [item])

    assert refused.value.param == "input[0].id"


def test_an_item_of_a_conversation_that_only_names_another_must_name_one(client):
    nameless = {"type": "item_reference", "id": "msg_none"}
    conversation = client.conversations.create()
    with pytest.raises(openai.BadRequestError, match="msg_none") as created:
        client.conversations.create(items=[nameless])
    with pytest.raises(openai.BadRequestError) as added:
        client.conversations.items.create(conversation.id, items=[nameless])

    assert created.value.param == added.value.param == "items[0].id"


def test_items_are_an_object_of_their_own(client, server):
    conversation = client.conversations.create()
    address = f"{server.base_url}/conversations/{conversation.id}/items"
    refused = httpx.post(address, content=b"null", headers={"content-type": "application/json"})

    assert refused.status_code == 400


def test_the_beta_is_not_offered(server):
    refused = httpx.post(f"{server.base_url}/responses?beta=true", content=b"5")

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "beta"


def test_a_response_that_is_not_stored_cannot_be_continued(client):
    said = answer(client, "Hello!", store=False)

    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, "And?", previous_response_id=said.id)
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


def test_items_beyond_the_context_are_refused_or_left_out_on_request(client):
    old = [{"role": role, "content": "word " * 900} for role in ("user", "assistant") * 3]
    asked = [*old, {"role": "user", "content": "What is 2 + 3?"}]
    fitted = answer(client, asked, truncation="auto", max_output_tokens=50)
    counted = client.responses.input_tokens.count(model="builtin", input=asked, truncation="auto")

    assert fitted.truncation == "auto"
    assert fitted.truncated_items == 4
    assert counted.input_tokens < 1000 * len(asked)
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, asked)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")


def test_prompts_are_those_of_the_settings(client):
    with pytest.raises(openai.NotFoundError) as refused:
        answer(client, "Hello!", prompt={"id": "pmpt_none"})

    assert refused.value.param == "prompt.id"


def test_every_value_of_include_is_honoured(client):
    said = answer(client, "Hello!", include=[
        "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
        "message.input_image.image_url", "computer_call_output.output.image_url",
        "code_interpreter_call.outputs", "reasoning.encrypted_content",
        "message.output_text.logprobs",
    ])  # fmt: skip

    assert said.output[-1].content[0].logprobs


def test_files_are_read_as_text_now_and_later(client):
    text = "The code word is swordfish."
    file = client.files.create(file=("notes.txt", text.encode()), purpose="user_data")
    data = "data:text/html;base64," + base64.b64encode(b"<html><p>Second file.</p>").decode()
    asked = {"role": "user", "content": [
        {"type": "input_text", "text": "Hello!"},
        {"type": "input_file", "file_id": file.id},
        {"type": "input_file", "filename": "page.html", "file_data": data},
    ]}  # fmt: skip
    alone = client.responses.input_tokens.count(model="builtin", input="Hello!")
    said = answer(client, [asked])
    again = answer(client, "And?", previous_response_id=said.id)
    (kept,) = client.responses.input_items.list(said.id)

    assert said.usage.input_tokens > alone.input_tokens + 10
    assert again.usage.input_tokens > said.usage.input_tokens
    assert kept.content[1].file_id == file.id


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_file", "file_id": "file-none"}, "input[0].content[0].file_id"),
        ({"type": "input_file", "file_url": "http://a/b.txt"}, "input[0].content[0].file_url"),
        ({"type": "input_file", "file_data": "?"}, "input[0].content[0].file_data"),
        ({"type": "input_file", "filename": "a.doc", "file_data": "0M8R4KGxGuE="},
         "input[0].content[0]"),
        ({"type": "input_file"}, "input[0].content[0]"),
        ({"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,AA=="},
         "input[0].content[0].image_url"),
    ],
)  # fmt: skip
def test_an_unreadable_part_is_refused_by_its_place(client, part, param):
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, [{"role": "user", "content": [part]}])

    assert refused.value.param == param


def test_a_compacted_conversation_is_gone_on_from(client):
    first = answer(client, "Hello!")
    again = {"role": "user", "content": "How are you?"}
    compacted = client.responses.compact(
        model="builtin", input=[again], previous_response_id=first.id
    )
    items = [item.to_dict(warnings=False) for item in compacted.output]
    said = answer(client, [*items, {"role": "user", "content": "What is 2 + 3?"}])

    assert compacted.object == "response.compaction"
    assert [item["type"] for item in items] == ["message", "message", "compaction"]
    assert [item["content"][0]["text"] for item in items[:2]] == ["Hello!", "How are you?"]
    assert compacted.usage.output_tokens > 0
    assert said.status == "completed"


def test_a_long_conversation_is_summed_up_before_it_is_answered(client):
    long = answer(client, "owl " * 400, max_output_tokens=16)
    with answer(
        client, "What is 2 + 3?", previous_response_id=long.id, max_output_tokens=16, stream=True,
        context_management=[{"type": "compaction", "compact_threshold": 1000}],
    ) as stream:  # fmt: skip
        events = list(stream)
    short = events[-1].response
    after = answer(client, "And 3 + 4?", previous_response_id=short.id, max_output_tokens=16)

    check_events([event.to_dict(warnings=False) for event in events])
    assert [item.type for item in short.output] == ["compaction", "message"]
    added, *compacting, done = [
        event for event in events if getattr(event, "output_index", None) == 0
    ]
    assert (added.type, added.item.encrypted_content) == ("response.output_item.added", "")
    assert {event.type for event in compacting} == {"response.compaction.compacting"}
    assert (done.type, done.item) == ("response.output_item.done", short.output[0])
    assert short.usage.input_tokens > long.usage.input_tokens > 1000
    assert after.usage.input_tokens < 500
    assert client.responses.retrieve(short.id).output == short.output


@pytest.mark.parametrize("hides", [True, False])
def test_streams_are_obfuscated_unless_switched_off(client, hides):
    options = {} if hides else {"stream_options": {"include_obfuscation": False}}
    with answer(client, "Hello!", stream=True, **options) as stream:
        pieces = [event.to_dict() for event in stream if event.type.endswith(".delta")]

    assert pieces
    assert all(("obfuscation" in piece) == hides for piece in pieces)


def test_a_response_reports_moderation_of_input_and_output(client):
    said = answer(client, "Hello!", moderation={"model": "omni-moderation-latest"})
    kept = client.responses.retrieve(said.id)

    assert said.moderation.input.model == "builtin"
    assert len(said.moderation.output.category_scores) == 13
    assert kept.moderation == said.moderation


def test_more_files_than_a_request_may_have_are_refused(client):
    files = [{"type": "input_file", "filename": "a.txt", "file_data": "YQ=="}] * 65
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, [{"role": "user", "content": files}])

    assert refused.value.param == "input[0].content[64]"


def test_a_response_in_the_background_is_summed_up_and_judged_too(client):
    long = answer(client, "owl " * 400, max_output_tokens=16)
    begun = answer(
        client, "What is 2 + 3?", previous_response_id=long.id, max_output_tokens=16,
        background=True, moderation={"model": "builtin"},
        context_management=[{"type": "compaction", "compact_threshold": 1000}],
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while (ended := client.responses.retrieve(begun.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert [item.type for item in ended.output] == ["compaction", "message"]
    assert ended.moderation.output.model == "builtin"


def test_the_moderation_model_must_be_local(client):
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, "Hello!", moderation={"model": "unknown"})

    assert refused.value.param == "moderation.model"


def test_a_compaction_of_another_server_cannot_be_read(client):
    with pytest.raises(openai.BadRequestError) as refused:
        answer(client, [{"type": "compaction", "encrypted_content": "gAAAA"}])

    assert refused.value.param == "input[0].encrypted_content"


def test_responses_outlive_the_server(tmp_path):
    with serve(tmp_path) as served, connected(served) as client:
        first = answer(client, "Hello!")
    with serve(tmp_path) as served, connected(served) as client:
        second = answer(client, "What is 2 + 3?", previous_response_id=first.id)

    assert second.usage.input_tokens > first.usage.total_tokens


def connected(served: Served) -> openai.OpenAI:
    return StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "compaction_trigger"}, "items[1].type"),
        ({"type": "reasoning", "summary": "none"}, "items[1].summary"),
        ({"type": "local_shell_call", "status": "completed"}, "items[1].action"),
        ({"role": "user", "content": "Hi", "status": "lost"}, "items[1].status"),
    ],
)
def test_an_item_that_a_conversation_cannot_list_is_refused_and_not_stored(client, item, param):
    conversation = client.conversations.create()
    items = [{"role": "user", "content": "Hi"}, item]

    with pytest.raises(openai.BadRequestError) as added:
        client.conversations.items.create(conversation.id, items=items)
    with pytest.raises(openai.BadRequestError) as created:
        client.conversations.create(items=items)

    assert [added.value.param, created.value.param] == [param, param]
    assert client.conversations.items.list(conversation.id).data == []


def test_a_shell_call_is_listed_with_the_limits_that_it_leaves_out(client):
    call = {"type": "shell_call", "call_id": "call_1", "action": {"commands": ["ls"]}}
    conversation = client.conversations.create(items=[call])

    (listed,) = client.conversations.items.list(conversation.id).data

    assert listed.action.commands == ["ls"]
    assert listed.action.max_output_length is None
