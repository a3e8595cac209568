"""The official client drives every local operation, whole and streamed, sync and async."""

import asyncio
import json

import httpx
import openai
import pytest

HELLO = [{"role": "user", "content": "Hello!"}]


def test_a_chat_is_answered(client):
    answer = client.chat.completions.create(model="builtin", messages=HELLO)

    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 0


def test_a_streamed_chat_equals_the_whole_one(client):
    whole = client.chat.completions.create(model="builtin", messages=HELLO, temperature=0)
    with client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0, stream=True,
        stream_options={"include_usage": True},
    ) as stream:  # fmt: skip
        chunks = list(stream)

    *content, last, usage = chunks
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.created for chunk in chunks}) == 1
    assert content[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in content[1:])
    assert all(chunk.choices[0].finish_reason is None for chunk in content)
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.content is None
    text = "".join(chunk.choices[0].delta.content or "" for chunk in content)
    assert text == whole.choices[0].message.content
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("hides", [True, False])
def test_streams_are_obfuscated_unless_switched_off(client, hides):
    options = {} if hides else {"stream_options": {"include_obfuscation": False}}
    chat = {"model": "builtin", "stream": True, **options}
    chunks = [
        *client.chat.completions.create(messages=HELLO, **chat),
        *client.completions.create(prompt="Hello", **chat),
    ]

    assert all(("obfuscation" in chunk.to_dict()) == hides for chunk in chunks)


def test_a_chat_reports_moderation_of_input_and_output(client):
    asked = {"model": "builtin", "messages": HELLO, "temperature": 0}
    judge = {"model": "omni-moderation-latest"}
    whole = client.chat.completions.create(**asked, moderation=judge, n=2, store=True)
    *_, last = client.chat.completions.create(**asked, moderation=judge, stream=True)
    kept = client.chat.completions.retrieve(whole.id)

    assert len(whole.moderation.input.results) == 1
    assert len(whole.moderation.output.results) == 2
    assert last.choices == []
    assert last.moderation.output.results[0].model == "builtin"
    assert kept.moderation == whole.moderation


def test_blocked_inputs_and_outputs_are_withheld(client):
    policy = {"input": {"mode": "block"}, "output": {"mode": "block"}}
    answer = client.chat.completions.create(
        model="builtin", messages=HELLO,
        moderation={"model": "omni-moderation-latest", "policy": policy},
    )  # fmt: skip

    told = answer.moderation
    flagged = told.input.results[0].flagged or told.output.results[0].flagged
    assert (answer.choices[0].finish_reason == "content_filter") == flagged
    assert bool(answer.choices[0].message.content) != flagged


async def test_the_async_client_is_served_alike(async_client):
    whole = await async_client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0
    )
    stream = await async_client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0, stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert text == whole.choices[0].message.content


async def test_several_chats_at_once_are_all_answered(async_client):
    answers = await asyncio.gather(
        *(
            async_client.chat.completions.create(
                model="builtin", messages=[{"role": "user", "content": f"Repeat after me: {word}"}]
            )
            for word in ("apple", "stone", "river", "cloud", "piano", "tiger", "lemon", "chair")
        )
    )

    assert len({answer.id for answer in answers}) == 8
    assert all(answer.choices[0].message.content for answer in answers)


def test_the_same_seed_gives_the_same_answer(exact_client):
    said = {
        exact_client.chat.completions.create(
            model="builtin", messages=HELLO, seed=7, temperature=1.5, max_tokens=12
        ).choices[0].message.content
        for _ in range(3)
    }  # fmt: skip

    assert len(said) == 1


def test_several_choices_come_with_one_prompt(client):
    answer = client.chat.completions.create(
        model="builtin", messages=HELLO, n=3, temperature=1.5, max_tokens=8
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage.completion_tokens <= 24


def test_an_answer_ends_at_the_token_limit_and_at_a_stop_string(client):
    cut = client.chat.completions.create(model="builtin", messages=HELLO, max_tokens=1)
    whole = client.chat.completions.create(model="builtin", messages=HELLO, temperature=0)
    text = whole.choices[0].message.content
    stop = text[3:6]
    stopped = client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0, stop=[stop]
    )

    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 1
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].message.content == text[: text.index(stop)]


def test_the_logprobs_of_an_empty_answer_are_none_of_any_token(client):
    completion = client.completions.create(
        model="builtin", prompt=["a", "b"], max_tokens=0, logprobs=2
    )
    plain = client.completions.create(model="builtin", prompt="a", max_tokens=0)

    for choice in completion.choices:
        assert choice.logprobs.model_dump() == {
            "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [],
        }  # fmt: skip
    assert plain.choices[0].logprobs is None


def test_logprobs_have_each_token_and_its_alternatives(client):
    answer = client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0, logprobs=True, top_logprobs=3, max_tokens=5
    )

    content = answer.choices[0].logprobs.content
    spelled = b"".join(bytes(token.bytes) for token in content)
    assert len(content) == 5
    assert spelled.decode() == answer.choices[0].message.content
    assert all(len(token.top_logprobs) == 3 for token in content)
    assert all(token.logprob == max(t.logprob for t in token.top_logprobs) for token in content)


def test_a_tool_is_called_and_its_result_used(client):
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat.completions.create(
        model="builtin", messages=question, tools=[tool], temperature=0
    )
    call = asked.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21}'}
    answer = client.chat.completions.create(
        model="builtin",
        messages=[*question, asked.choices[0].message.to_dict(), result],
        tools=[tool],
        temperature=0,
    )

    assert asked.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.choices[0].message.content


def test_a_prompt_is_continued_in_all_its_forms(client):
    for prompt, count in (("Hello", 1), (["Hello", "Good"], 2), ([5, 6, 7], 1), ([[5], [6, 7]], 2)):
        answer = client.completions.create(model="builtin", prompt=prompt, max_tokens=4)

        assert answer.object == "text_completion"
        assert [choice.index for choice in answer.choices] == list(range(count))
        assert answer.usage.completion_tokens <= 4 * count


def test_a_streamed_prompt_with_echo_begins_with_itself(client):
    with client.completions.create(
        model="builtin", prompt="Hello there", max_tokens=3, echo=True, stream=True, temperature=0
    ) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    whole = client.completions.create(
        model="builtin", prompt="Hello there", max_tokens=3, echo=True, temperature=0
    )

    assert text.startswith("Hello there")
    assert whole.choices[0].text == text


def test_logprobs_of_an_echoed_prompt_begin_with_null(client):
    answer = client.completions.create(
        model="builtin", prompt="Hello there", max_tokens=0, echo=True, logprobs=2
    )

    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == "Hello there"
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    pairs = zip(logprobs.tokens[1:], logprobs.top_logprobs[1:], strict=True)
    assert all(token in top and 2 <= len(top) <= 3 for token, top in pairs)
    assert logprobs.text_offset[0] == 0
    assert len(logprobs.text_offset) == len(logprobs.tokens)


def test_the_best_of_several_is_given(client):
    answer = client.completions.create(
        model="builtin", prompt="Hello", n=2, best_of=4, max_tokens=4, temperature=1.0
    )

    assert len(answer.choices) == 2


def test_every_sampler_is_accepted_and_a_seed_repeats_the_answer(exact_client):
    wishes = {
        "top_k": 40, "min_p": 0.01, "typical_p": 0.9, "xtc_probability": 0.5, "xtc_threshold": 0.2,
        "repeat_penalty": 1.1, "repeat_last_n": -1, "dry_multiplier": 0.8, "dry_base": 1.5,
        "dry_allowed_length": 1, "dry_penalty_last_n": -1, "dry_sequence_breakers": ["."],
        "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1,
        "min_tokens": 4, "stop_token_ids": [1], "ignore_eos": True,
    }  # fmt: skip

    def texts() -> list[str | None]:
        answer = exact_client.chat.completions.create(
            model="builtin", messages=HELLO, seed=1, n=2, max_tokens=12, logprobs=True,
            extra_body=wishes,
        )  # fmt: skip
        return [choice.message.content for choice in answer.choices]

    assert texts() == texts()


def test_a_prediction_changes_no_answer_and_what_came_of_it_is_counted(client):
    asked = {"model": "builtin", "messages": HELLO, "temperature": 0, "max_tokens": 40}
    plain = client.chat.completions.create(**asked)
    said = plain.choices[0].message.content
    right = client.chat.completions.create(**asked, prediction={"type": "content", "content": said})
    parts = [{"type": "text", "text": "Something "}, {"type": "text", "text": "else altogether"}]
    wrong = client.chat.completions.create(
        **asked, prediction={"type": "content", "content": parts}
    )

    assert [right.choices[0].message.content, wrong.choices[0].message.content] == [said, said]
    details = [answer.usage.completion_tokens_details for answer in (plain, right, wrong)]
    assert details[0].accepted_prediction_tokens == details[0].rejected_prediction_tokens == 0
    assert details[1].accepted_prediction_tokens > details[1].rejected_prediction_tokens
    assert details[2].accepted_prediction_tokens < details[2].rejected_prediction_tokens
    assert right.usage.completion_tokens == plain.usage.completion_tokens


def test_a_suffix_that_the_model_cannot_write_towards_is_refused(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="builtin", prompt="Hello", suffix=" world")

    assert caught.value.param == "suffix"


def test_models_are_listed_with_their_kind(client):
    models = {model.id: model for model in client.models.list()}

    assert set(models) == {"builtin", "gpt-3.5-turbo"}
    assert "small" in models["builtin"].to_dict()["description"]
    assert client.models.retrieve("gpt-3.5-turbo").id == "gpt-3.5-turbo"


def test_an_alias_answers_under_its_own_name(client):
    answer = client.chat.completions.create(model="gpt-3.5-turbo", messages=HELLO, max_tokens=2)

    assert answer.model == "gpt-3.5-turbo"


def test_a_local_model_cannot_be_deleted_by_a_client(client):
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("builtin")


def test_an_unknown_model_is_not_found_everywhere(client):
    calls = [
        lambda: client.chat.completions.create(model="unknown", messages=HELLO),
        lambda: client.completions.create(model="unknown", prompt="x"),
        lambda: client.embeddings.create(model="unknown", input="x"),
        lambda: client.models.retrieve("unknown"),
        lambda: client.models.delete("unknown"),
    ]
    for call in calls:
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"


def test_a_chat_model_refuses_embeddings(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="builtin", input="x")
    assert "embed" in caught.value.message


def test_a_prompt_that_cannot_fit_is_refused(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="builtin", messages=[{"role": "user", "content": "word " * 9000}]
        )
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("stream", [False, True])
def test_oldest_messages_of_a_long_chat_are_left_out_on_request(client, stream):
    system = {"role": "system", "content": "You are near."}
    old = [{"role": role, "content": "word " * 900} for role in ("user", "assistant") * 3]
    asked = client.chat.completions.create(
        model="builtin", messages=[system, *old, {"role": "user", "content": "What is 2 + 3?"}],
        max_tokens=20, stream=stream, extra_body={"truncation": "auto", "cache_prompt": True},
    )  # fmt: skip

    answer = next(iter(asked)) if stream else asked
    assert answer.truncated_messages == 4


@pytest.mark.parametrize("field", [{"cache_prompt": False}, {"id_slot": 3}, {"n_keep": 10}])
def test_other_servers_fields_about_slots_are_refused_by_name(client, field):
    with pytest.raises(openai.BadRequestError) as of_completion:
        client.completions.create(model="builtin", prompt="Hi", extra_body=field)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="builtin", messages=[{"role": "user", "content": "Hi"}], extra_body=field
        )

    assert refused.value.param == of_completion.value.param == next(iter(field))


@pytest.mark.parametrize(
    "field", [{"cache_prompt": False}, {"id_slot": 0}, {"n_keep": 10}, {"seed": 0}]
)
def test_fields_without_effect_on_responses_are_refused_by_name(client, field):
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="builtin", input="Hi", extra_body=field)

    assert refused.value.param == next(iter(field))


def test_slot_fields_with_the_default_are_accepted(client):
    neutral = {"cache_prompt": True, "id_slot": -1, "n_keep": 0}
    asked = {"model": "builtin", "extra_body": neutral}

    assert client.responses.create(input="Hi", max_output_tokens=16, **asked).output
    assert client.completions.create(prompt="Hi", max_tokens=1, **asked).choices
    assert client.chat.completions.create(messages=HELLO, max_tokens=1, **asked).choices


def test_a_token_outside_the_vocabulary_is_refused(client):
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="builtin", prompt=[10**6])


def test_an_operation_without_an_upstream_names_the_setting(client):
    with pytest.raises(openai.APIStatusError) as caught:
        client.images.generate(prompt="a cat")
    assert caught.value.status_code == 501
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert "OPENAI_API_KEY" in caught.value.message


def test_stored_chats_are_listed_read_changed_and_deleted(client):
    kept = [
        client.chat.completions.create(
            model="builtin", messages=HELLO, max_tokens=2, metadata={"run": "stored", "n": str(n)}
        )
        for n in range(3)
    ]
    client.chat.completions.create(
        model="builtin", messages=HELLO, max_tokens=2, metadata={"run": "stored"}, store=False
    )

    listed = list(client.chat.completions.list(metadata={"run": "stored"}, limit=2))
    assert [chat.id for chat in listed] == [chat.id for chat in kept]
    newest = client.chat.completions.list(metadata={"run": "stored"}, order="desc", limit=1)
    assert newest.data[0].id == kept[2].id
    got = client.chat.completions.retrieve(kept[0].id)
    assert got.choices[0].message.content == kept[0].choices[0].message.content
    messages = client.chat.completions.messages.list(kept[0].id)
    assert messages.data[0].content == "Hello!"
    changed = client.chat.completions.update(kept[0].id, metadata={"run": "changed"})
    assert changed.metadata == {"run": "changed"}
    assert client.chat.completions.delete(kept[0].id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.retrieve(kept[0].id)
    assert kept[0].id in caught.value.message


def test_a_streamed_chat_is_stored_before_its_last_word(client):
    with client.chat.completions.create(
        model="builtin", messages=HELLO, temperature=0, stream=True
    ) as stream:
        chunks = list(stream)

    stored = client.chat.completions.retrieve(chunks[0].id)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert stored.choices[0].message.content == text
    assert stored.to_dict()["status"] == "completed"


def test_an_empty_prompt_begins_a_new_text(client):
    answer = client.completions.create(model="builtin", prompt="", max_tokens=3, echo=True)

    assert answer.usage.prompt_tokens == 1
    assert answer.usage.completion_tokens <= 3


def test_echo_of_an_empty_prompt_has_no_text(client):
    answer = client.completions.create(
        model="builtin", prompt="", max_tokens=3, echo=True, logprobs=0, temperature=0
    )

    text, logprobs = answer.choices[0].text, answer.choices[0].logprobs
    assert text == "".join(logprobs.tokens[1:])
    assert logprobs.text_offset[:3] == [0, 0, len(logprobs.tokens[1])]


def test_an_answer_without_tokens_has_no_speed(client):
    answer = client.completions.create(model="builtin", prompt="Hello", n=2, max_tokens=0)

    assert answer.usage.completion_tokens == 0
    assert answer.usage.timings["tokens_per_second"] == 0


def test_usage_has_timings(client):
    answer = client.chat.completions.create(model="builtin", messages=HELLO)

    timings = answer.usage.timings
    assert timings["queue_s"] >= 0
    assert timings["prompt_s"] > 0
    assert timings["generation_s"] > 0
    assert timings["tokens_per_second"] > 0


def test_the_answer_names_the_tier_it_was_given(client):
    for asked, given in (("auto", "default"), ("priority", "default"), ("flex", "flex")):
        answer = client.chat.completions.create(model="builtin", messages=HELLO, service_tier=asked)

        assert answer.service_tier == given


def test_stored_chats_are_searched(client):
    answer = client.chat.completions.create(
        model="builtin",
        messages=[{"role": "user", "content": "Say: Xylophones."}],
        metadata={"title": "An orchestra"},
    )

    found = client.get(
        "/chat/search", cast_to=httpx.Response, options={"params": {"query": "xyloph ORCH"}}
    ).json()

    (match,) = found["data"]
    assert (match["id"], match["title"]) == (answer.id, "An orchestra")
    assert "Xylophones" in [part["text"] for part in match["excerpt"] if part["is_match"]]
