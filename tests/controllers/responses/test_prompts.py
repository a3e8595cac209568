"""Prompts are messages from the settings, with variables put in."""

import pytest

from llm_backend.controllers.responses.prompts import prompt_messages
from llm_backend.errors import ApiError
from llm_backend.settings.prompt import PromptSettings

GUIDE = PromptSettings.model_validate(
    {
        "version": "2",
        "messages": [
            {"role": "developer", "content": "You guide through {{ city }}."},
            {"role": "user", "content": "I like {{thing}} and {{thing}}, not {{}} or {x}."},
        ],
    }
)
CONFIGURED = {"pmpt_guide": GUIDE}
VALUES = {"city": "Oslo", "thing": {"type": "input_text", "text": "{{city}}"}}


def test_variables_are_put_in_once():
    first, second = prompt_messages({"id": "pmpt_guide", "variables": VALUES}, CONFIGURED)

    assert first == {"role": "developer", "content": "You guide through Oslo."}
    assert second["content"] == "I like {{city}} and {{city}}, not {{}} or {x}."


def test_no_prompt_is_no_message():
    assert prompt_messages(None, CONFIGURED) == []


@pytest.mark.parametrize(
    ("prompt", "status", "param"),
    [
        ({"id": "pmpt_other"}, 404, "prompt.id"),
        ({"id": "pmpt_guide", "version": "1"}, 404, "prompt.version"),
        ({"id": "pmpt_guide", "variables": {"city": "Oslo"}}, 400, "prompt.variables.thing"),
        ({"id": "pmpt_guide", "variables": {**VALUES, "x": ""}}, 400, "prompt.variables.x"),
        (
            {"id": "pmpt_guide", "variables": {**VALUES, "city": {"type": "input_image"}}},
            400,
            "prompt.variables.city",
        ),
    ],
)
def test_what_is_not_a_prompts_is_named(prompt, status, param):
    with pytest.raises(ApiError) as refused:
        prompt_messages(prompt, CONFIGURED)

    assert (refused.value.status, refused.value.param) == (status, param)
