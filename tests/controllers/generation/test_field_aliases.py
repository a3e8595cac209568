"""Names of other servers for fields of chats."""

from typing import Any

import pytest

from llm_backend.controllers.generation.field_aliases import with_common_names
from llm_backend.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"repetition_penalty": 1.1}, {"repeat_penalty": 1.1}),
        ({"repetition_penalty": None}, {"repetition_penalty": None}),
        ({"n_choice": 2}, {"n": 2}),
        ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"enable_thinking": True, "chat_template_kwargs": {"a": 1}},
         {"chat_template_kwargs": {"a": 1, "enable_thinking": True}}),
        ({"temperature": 1}, {"temperature": 1}),
        ({"max_tokens": 5, "max_completion_tokens": 5},
         {"max_tokens": 5, "max_completion_tokens": 5}),
    ],
)  # fmt: skip
def test_aliases_become_the_fields_of_this_server(given: Any, expected: Any) -> None:
    assert with_common_names({"model": "m", **given}) == {"model": "m", **expected}


@pytest.mark.parametrize(
    "fields",
    [
        {"repetition_penalty": 1.1, "repeat_penalty": 1.2},
        {"n_choice": 1, "n": 1},
        {"max_tokens": 3, "max_completion_tokens": 5},
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_a_field_under_both_names_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        with_common_names(fields)

    assert refused.value.param == next(iter(fields))
