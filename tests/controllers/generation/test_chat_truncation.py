"""`truncation: auto` of a chat drops its oldest messages, and nothing that must stay."""

import dataclasses

import pytest

from llm_backend.backends.base import Chat
from llm_backend.controllers.generation.truncation import truncate_chat
from tests.controllers.responses.scripted import Model

SYSTEM = {"role": "system", "content": "s" * 20}
TURNS = [{"role": role, "content": "x" * 20} for role in ("user", "assistant") * 3]
QUESTION = {"role": "user", "content": "y" * 20}
CALL = {"role": "assistant", "content": "x" * 20, "tool_calls": [{"id": "call_1"}]}
OUTPUT = {"role": "tool", "content": "x" * 20, "tool_call_id": "call_1"}


async def truncated(messages, context_tokens, max_tokens=10):
    model = Model()
    model.context_tokens = context_tokens
    chat = Chat(messages=messages)
    limits = dataclasses.replace(chat.limits, max_tokens=max_tokens)
    kept, dropped = await truncate_chat(model, dataclasses.replace(chat, limits=limits))
    return list(kept.messages), dropped


async def test_chat_that_fits_is_unchanged():
    assert await truncated([SYSTEM, *TURNS, QUESTION], 1000) == ([SYSTEM, *TURNS, QUESTION], 0)


@pytest.mark.parametrize("instructions", [[], [SYSTEM], [SYSTEM, SYSTEM]])
async def test_oldest_turns_go_and_instructions_stay(instructions):
    room = sum(len(message["content"]) for message in instructions) + 75
    kept = [*instructions, *TURNS[-2:], QUESTION]

    assert await truncated([*instructions, *TURNS, QUESTION], room) == (kept, 4)


async def test_call_and_its_output_are_not_parted():
    messages = [QUESTION, CALL, OUTPUT, *[TURNS[1]] * 2]

    assert await truncated(messages, 95) == ([CALL, OUTPUT, *[TURNS[1]] * 2], 1)
    assert await truncated(messages, 75) == ([*[TURNS[1]] * 2], 3)


async def test_chat_of_which_nothing_fits_is_left_to_the_model():
    assert await truncated([SYSTEM, QUESTION], 30) == ([SYSTEM, QUESTION], 0)
