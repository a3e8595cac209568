"""Prompts are messages from the settings, with variables put in."""

import pytest

from llm_backend.controllers.responses.input.prompts import prompt_messages
from llm_backend.errors import ApiError
from llm_backend.settings.responses import PromptSettings

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


async def read(part, where):
    return {"shown": part["type"], "where": where}


async def test_variables_are_put_in_once():
    prompt = {"id": "pmpt_guide", "variables": VALUES}
    first, second = await prompt_messages(prompt, CONFIGURED, read)

    assert first == {"role": "developer", "content": "You guide through Oslo."}
    assert second["content"] == "I like {{city}} and {{city}}, not {{}} or {x}."


async def test_no_prompt_is_no_message():
    assert await prompt_messages(None, CONFIGURED, read) == []


async def test_images_and_files_are_parts_where_their_variables_stand():
    values = {"a": {"type": "input_image"}, "b": {"type": "input_file"}, "c": "{{a}}"}
    said = [{"role": "user", "content": "{{a}} is {{c}}, {{c}}; {{b}}{{a}}"}]
    configured = {"pmpt_see": PromptSettings.model_validate({"messages": said})}
    image = {"shown": "input_image", "where": "prompt.variables.a"}

    (shown,) = await prompt_messages({"id": "pmpt_see", "variables": values}, configured, read)

    assert shown["content"] == [
        image,
        {"type": "text", "text": " is {{a}}, {{a}}; "},
        {"shown": "input_file", "where": "prompt.variables.b"},
        image,
    ]


@pytest.mark.parametrize("kind", ["input_image", "input_file"])
async def test_messages_of_the_assistant_in_a_prompt_are_text(kind):
    said = [{"role": "assistant", "content": "I saw {{a}}."}]
    configured = {"pmpt_see": PromptSettings.model_validate({"messages": said})}
    prompt = {"id": "pmpt_see", "variables": {"a": {"type": kind}}}

    with pytest.raises(ApiError, match="stands in a message of the assistant") as refused:
        await prompt_messages(prompt, configured, read)

    assert (refused.value.status, refused.value.param) == (400, "prompt.variables.a")


@pytest.mark.parametrize(
    ("prompt", "status", "param"),
    [
        ({"id": "pmpt_other"}, 404, "prompt.id"),
        ({"id": "pmpt_guide", "version": "1"}, 404, "prompt.version"),
        ({"id": "pmpt_guide", "variables": {"city": "Oslo"}}, 400, "prompt.variables.thing"),
        ({"id": "pmpt_guide", "variables": {**VALUES, "x": ""}}, 400, "prompt.variables.x"),
    ],
)
async def test_unknown_variables_of_a_prompt_are_named(prompt, status, param):
    with pytest.raises(ApiError) as refused:
        await prompt_messages(prompt, CONFIGURED, read)

    assert (refused.value.status, refused.value.param) == (status, param)
