"""Bodies become generations; what is not honoured is refused by name."""

import pytest

from llm_backend.backends.local.media import Audio, Image
from llm_backend.controllers.generation.request_translation import chat_from, prompts_from
from llm_backend.engine.messages import Priority
from llm_backend.errors import InvalidRequest, UnsupportedField

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

FUNCTION, BROKEN = TOOL["function"], {"properties": []}


def named_tool(name):
    return {"type": "function", "function": {"name": name}}


def allowed(mode, *names):
    tools = [named_tool(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def chat(**fields):
    return chat_from({**CHAT, **fields}, choices_limit=4)


def prompts(**fields):
    return prompts_from({"model": "m", "prompt": "p", **fields}, choices_limit=4, prompts_limit=3)


def test_null_means_the_default_everywhere():
    nothing = dict.fromkeys(
        ["temperature", "top_p", "n", "stop", "max_tokens", "max_completion_tokens", "seed",
         "tools", "logit_bias", "logprobs", "top_logprobs", "response_format", "stream_options",
         "store"]
    )  # fmt: skip

    assert chat(**nothing) == chat()


def test_sampling_fields_are_translated():
    asked = chat(temperature=0, top_p=0.5, frequency_penalty=1, presence_penalty=-1,
                 logit_bias={"5": -100}, seed=-3, logprobs=True, top_logprobs=2)  # fmt: skip

    assert asked.sampling.temperature == 0.0
    assert asked.sampling.top_p == 0.5
    assert asked.sampling.frequency_penalty == 1.0
    assert asked.sampling.presence_penalty == -1.0
    assert asked.sampling.logit_bias == {5: -100.0}
    assert asked.sampling.seed == 2**63 - 3
    assert asked.sampling.logprobs == 2


def test_the_newer_of_two_token_limits_counts():
    assert chat(max_tokens=5, max_completion_tokens=7).limits.max_tokens == 7
    assert chat(max_tokens=5).limits.max_tokens == 5


def test_a_limit_of_minus_one_is_none():
    assert chat(max_tokens=-1).limits.max_tokens is None
    assert chat(max_completion_tokens=-1).limits.max_tokens is None
    assert prompts(max_tokens=-1)[0].limits.max_tokens is None


def test_stop_may_be_a_string_or_a_list():
    assert chat(stop="a").limits.stop == ("a",)
    assert chat(stop=["a", "b"]).limits.stop == ("a", "b")


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("modalities", ["text", "audio"], "modalities"),
        ("web_search_options", {}, "web_search_options"),
        ("functions", [{"name": "f"}], "functions"),
        ("something_new", 1, "something_new"),
        ("verbosity", "low", "verbosity"),
        ("prompt_cache_options", {"mode": "explicit"}, "prompt_cache_options"),
        ("tools", [{"type": "computer", "custom": {"name": "c"}}], "tools[0].type"),
    ],
)
def test_a_field_that_is_not_honoured_is_refused_by_name(field, value, param):
    with pytest.raises(UnsupportedField) as caught:
        chat(**{field: value})
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"n": 5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -2}, "max_completion_tokens"),
        ({"stop": ["a", ""]}, "stop"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}
                ]
            },
            "tools[0].function.parameters.type",
        ),
        (
            {"tools": [{"type": "function", "function": {**FUNCTION, "parameters": BROKEN}}]},
            "tools[0].function.parameters.properties",
        ),
        ({"tools": [named_tool("no name")]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": named_tool("g")}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            "tool_choice",
        ),
        ({"tools": [TOOL], "tool_choice": allowed("auto", "g")}, "tool_choice.allowed_tools.tools"),
        ({"tools": [TOOL], "tool_choice": allowed("auto")}, "tool_choice.allowed_tools.tools"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    assert caught.value.param == param


def test_neutral_values_of_unsupported_fields_pass():
    asked = chat(response_format={"type": "text"}, modalities=["text"], service_tier="auto")

    assert asked == chat()


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("m", {"prompt_cache_retention": "24h"}),
        ("m", {"prompt_cache_options": {"ttl": "30m", "mode": "implicit"}}),
        ("gpt-5-mini", {"verbosity": "low"}),
        ("openai/gpt-5.1", {"verbosity": "high"}),
    ],
)
def test_a_hint_changes_nothing(model, fields):
    assert chat(model=model, **fields) == chat(model=model)


@pytest.mark.parametrize(
    ("model", "must_take"),
    [
        ("m", True),
        ("gpt-4o", True),
        ("gpt-5-mini", False),
        ("o3", False),
        ("openai/o4-mini", False),
    ],
)
def test_an_effort_is_a_hint_under_the_name_of_a_model_that_supports_it(model, must_take):
    assert chat(model=model, reasoning_effort="low").must_take_effort is must_take


def test_tools_may_be_forbidden():
    assert chat(tools=[TOOL], tool_choice="none").tools == ()
    assert chat(tools=[TOOL]).tools == [TOOL]


@pytest.mark.parametrize(
    ("choice", "must_call", "names"),
    [
        ("auto", False, None),
        ("required", True, None),
        (named_tool("g"), True, {"g"}),
        (allowed("auto", "f"), False, {"f"}),
        (allowed("required", "f", "g"), True, {"f", "g"}),
    ],
)
def test_a_tool_choice_selects_callable_tools(choice, must_call, names):
    asked = chat(tools=[TOOL, named_tool("g")], tool_choice=choice)

    assert len(asked.tools) == 2
    assert asked.must_call is must_call
    assert asked.callable_names == names


def test_template_kwargs_are_translated():
    asked = chat(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False})

    assert asked.reasoning_effort == "low"
    assert asked.template_kwargs == {"enable_thinking": False}


def test_content_may_be_a_string_or_parts_or_null():
    asked = chat_from(
        {
            "model": "m",
            "messages": [
                {
                    "role": "developer",
                    "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind"}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "f", "arguments": "{}"},
                },
                {"role": "function", "name": "f", "content": "1"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
            ],
        },
        choices_limit=1,
    )  # fmt: skip

    assert [message["role"] for message in asked.messages] == [
        "system",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message["content"] for message in asked.messages] == ["Be\nkind", None, "1", "No"]
    assert asked.messages[1]["tool_calls"][0]["function"]["name"] == "f"


def test_a_part_of_another_type_is_refused_where_it_stands():
    parts = [{"type": "text", "text": "a"}, {"type": "file", "file": {"file_id": "file-1"}}]

    with pytest.raises(UnsupportedField) as caught:
        chat(messages=[{"role": "user", "content": parts}])

    assert caught.value.param == "messages[0].content[1].type"


def test_images_and_audio_stand_between_the_texts():
    image = {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}}
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    parts = [{"type": "text", "text": "a"}, image, audio]

    asked = chat(messages=[{"role": "user", "content": parts}])

    assert asked.messages[0]["content"] == [
        "a",
        Image(url="data:,", detail="low", param="messages[0].content[1].image_url"),
        Audio(data="AA==", format="wav", param="messages[0].content[2].input_audio"),
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2]], [[1], [2]]),
        (None, [""]),
    ],
)
def test_all_forms_of_prompt_are_read(prompt, expected):
    assert [one.prompt for one in prompts(prompt=prompt)] == expected


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 5}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"stop_token_ids": [2**31]}, "stop_token_ids[0]"),
        ({"prompt": ["a"] * 4}, "prompt"),
        ({"prompt": []}, "prompt"),
    ],
)
def test_completions_that_cannot_be_are_refused_by_name(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        prompts(**fields)
    assert caught.value.param == param


def test_an_empty_suffix_is_none():
    assert prompts(suffix="end")[0].suffix == "end"
    assert prompts(suffix="")[0].suffix is None


def test_all_sampler_fields_are_translated():
    wishes = {
        "typical_p": 0.5, "xtc_probability": 0.25, "xtc_threshold": 0.125, "mirostat": 2,
        "mirostat_tau": 4, "mirostat_eta": 0.5, "repeat_last_n": 8, "dry_multiplier": 1,
        "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9, "top_k": 5, "min_p": 0.5,
    }  # fmt: skip
    asked = chat(**wishes, dry_sequence_breakers=["a"], min_tokens=2, stop_token_ids=[3, 4.0])

    assert {name: getattr(asked.sampling, name) for name in wishes} == wishes
    assert asked.sampling.dry_sequence_breakers == ("a",)
    assert (asked.limits.min_tokens, asked.limits.stop_token_ids) == (2, (3, 4))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a b", "a b"), ([{"type": "text", "text": "a "}, {"type": "text", "text": "b"}], "a b")],
)
def test_a_prediction_is_text_whole_or_in_parts(content, expected):
    assert chat(prediction={"type": "content", "content": content}).prediction == expected
    assert chat(prediction=None).prediction is None


def test_a_window_of_minus_one_is_everything():
    asked = chat(repeat_last_n=-1, dry_penalty_last_n=-1)

    assert asked.sampling.repeat_last_n is None
    assert asked.sampling.dry_penalty_last_n is None
    assert chat().sampling.repeat_last_n == 64


def test_completions_have_sixteen_tokens_by_default():
    assert prompts()[0].limits.max_tokens == 16
    assert prompts(max_tokens=0)[0].limits.max_tokens == 0


def test_whole_numbers_may_be_written_with_a_point():
    asked = chat(n=2.0, max_tokens=5.0, logprobs=True, top_logprobs=1.0)

    assert (asked.limits.choices, asked.limits.max_tokens, asked.sampling.logprobs) == (2, 5, 1)
    assert prompts(prompt=[1.0, 2])[0].prompt == [1, 2]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 1e300}, "max_tokens"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": [[1], [1e300]]}, "prompt[1][0]"),
    ],
)
def test_numbers_that_no_engine_can_hold_are_refused_where_they_stand(fields, param):
    with pytest.raises(InvalidRequest) as caught:
        prompts(**fields)
    assert caught.value.param == param


def test_the_flex_tier_has_batch_priority():
    assert chat(service_tier="flex").priority is Priority.BATCH
    assert chat(service_tier="priority").priority is Priority.INTERACTIVE
    assert chat().priority is Priority.INTERACTIVE
