"""Bodies of Ollama's chats and generations as bodies of chats, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from llm_backend.controllers.ollama.chat_body import chat_body_of, field_of, prompt_chat_body_of
from llm_backend.controllers.ollama.options import unloads
from llm_backend.controllers.ollama.raw import completion_body_of
from llm_backend.errors import InvalidRequest
from tests.counted_work import growth

HI = [{"role": "user", "content": "Hi"}]
CALL = {"function": {"name": "f", "arguments": {"n": 9007199254740993}}}
RENDERED_CALL = {
    "type": "function",
    "function": {"name": "f", "arguments": '{"n":9007199254740993}'},
}


def body_of(messages: Any = HI, **fields: Any) -> Any:
    return {"model": "m", "messages": messages, **fields}


def test_options_have_their_names_of_chats_and_load_options_are_hints() -> None:
    options = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "seed": 1, "stop": ["x"],
        "repeat_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.3,
    }  # fmt: skip
    ignored = {"num_ctx": 4096, "num_gpu": 1, "tfs_z": 1, "num_keep": 4}
    given = body_of(options={**options, **ignored, "num_predict": 7}, keep_alive="5m", think="low")

    assert chat_body_of(given) == {
        **options, "model": "m", "stream": True, "messages": HI, "max_completion_tokens": 7,
        "reasoning_effort": "low",
    }  # fmt: skip


@pytest.mark.parametrize("limit", [-2, -1, 0])
def test_limits_below_one_mean_no_limit(limit: int) -> None:
    assert "max_completion_tokens" not in chat_body_of(body_of(options={"num_predict": limit}))


@pytest.mark.parametrize("keep_alive", [0, 0.0, "0", "0s", "0m", "0h0m", "0.0s", "-0s"])
def test_a_model_is_unloaded_by_any_spelling_of_no_time(keep_alive: object) -> None:
    assert unloads({"keep_alive": keep_alive})


@pytest.mark.parametrize("keep_alive", [None, -1, 5, "5m", "-1", "10s", "0h5m", "", "00"])
def test_a_model_is_kept_by_any_other_time(keep_alive: object) -> None:
    assert not unloads({"keep_alive": keep_alive})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", {"type": "json_object"}),
        ({"type": "object"}, {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": {"type": "object"}, "strict": True}}),
        ("", None),
    ],
)  # fmt: skip
def test_formats_are_response_formats(form: Any, expected: Any) -> None:
    assert chat_body_of(body_of(format=form, stream=False)).get("response_format") == expected


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "a", "images": ["iVBORw0K", "/9j/4AAQ"]}],
         [{"role": "user", "content": [
             {"type": "text", "text": "a"},
             {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
             {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}}]}]),
        ([*HI, {"role": "assistant", "content": "", "thinking": "hm",
                "tool_calls": [CALL, {"id": "b", **CALL}]},
          {"role": "tool", "content": "two", "tool_call_id": "b"},
          {"role": "tool", "content": "one", "tool_name": "f"}],
         [*HI, {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [
             {"id": "call_1_0", **RENDERED_CALL}, {"id": "b", **RENDERED_CALL}]},
          {"role": "tool", "tool_call_id": "b", "content": "two"},
          {"role": "tool", "tool_call_id": "call_1_0", "content": "one"}]),
    ],
)  # fmt: skip
def test_messages_become_those_of_a_chat(messages: Any, expected: Any) -> None:
    assert chat_body_of(body_of(messages))["messages"] == expected


@pytest.mark.parametrize("field", ["tool_call_id", "tool_name"])
def test_results_of_many_calls_are_matched_in_linear_work(field: str) -> None:
    def make(size: int) -> Callable[[], object]:
        names = [f"f{number}" for number in range(size)]
        calls = [{"id": name, "function": {"name": name, "arguments": {}}} for name in names]
        results = [{"role": "tool", "content": "a", field: name} for name in reversed(names)]
        body = body_of([{"role": "assistant", "tool_calls": calls}, *results])
        return lambda: chat_body_of(body)

    assert growth(make, 100) < 2.2


def test_prompt_becomes_a_chat_and_empty_fields_of_clients_are_none() -> None:
    empty = {"suffix": "", "template": "", "context": [], "raw": False}
    given: Any = {"model": "m", "prompt": "Hi", "system": "Be brief.", "stream": False, **empty}

    assert prompt_chat_body_of(given) == {
        "model": "m",
        "stream": False,
        "messages": [{"role": "system", "content": "Be brief."}, *HI],
    }


def test_raw_prompt_becomes_a_completion() -> None:
    given: Any = {"model": "m", "prompt": "a", "suffix": "c", "options": {"num_predict": 3}}

    assert completion_body_of(given) == {
        "model": "m", "prompt": "a", "suffix": "c", "max_tokens": 3, "stream": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("translate", "body", "param"),
    [
        (chat_body_of, body_of(options={"penalize_newline": True}), "options.penalize_newline"),
        (chat_body_of, body_of(options={"unheard_of": 1}), "options.unheard_of"),
        (chat_body_of, body_of(template="{{ .Prompt }}"), "template"),
        (chat_body_of, body_of([*HI, {"role": "tool", "content": "a"}]), "messages[1]"),
        (chat_body_of, body_of([{"role": "system", "content": "a", "images": ["iVBORw0K"]}]),
         "messages[0].images"),
        (chat_body_of, body_of([*HI, {"role": "assistant", "tool_calls": [CALL]},
                                {"role": "tool", "content": "a", "images": ["iVBORw0K"]}]),
         "messages[2].images"),
        (prompt_chat_body_of, {"model": "m", "prompt": "a", "context": [1, 2]}, "context"),
        (completion_body_of, {"model": "m", "prompt": "a", "raw": True, "format": "json"},
         "format"),
    ],
)  # fmt: skip
def test_unsupported_fields_that_would_change_the_answer_are_refused_by_name(
    translate: Any, body: Any, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        translate(body)

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        ({"messages": [{"content": "a", "images": ["AA", "AA"]}]},
         "messages[0].content[2].image_url", "messages[0].images[1]"),
        ({"messages": [{"images": ["AA"]}]}, "messages[0].content[0]", "messages[0].images[0]"),
        ({"prompt": "a", "system": "b", "images": ["AA"]}, "messages[1].content[1]", "images[0]"),
        ({"messages": [{"content": "a"}]}, "messages[0].content", "messages[0].content"),
        ({"messages": []}, "response_format.json_schema.schema.type", "format.type"),
        ({"messages": []}, "stop[4]", "options.stop[4]"),
        ({"messages": []}, "max_completion_tokens", "options.num_predict"),
        ({"messages": []}, "reasoning_effort", "think"),
    ],
)  # fmt: skip
def test_errors_name_the_fields_of_ollamas_api(body: Any, path: str, expected: str):
    assert field_of(body, path) == expected
