"""The chat template of the built-in model, as a server renders it."""

from models.builtin.chat import Chat

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object"}},
}


def call(arguments: object) -> dict:
    return {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def test_a_question_is_rendered_up_to_the_answer():
    prompt = Chat().prompt([{"role": "user", "content": "Hello"}])

    assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_a_developer_message_is_a_system_message():
    as_system, as_developer = (
        Chat().prompt([{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hi"}])
        for role in ("system", "developer")
    )

    assert as_developer == as_system
    assert as_system.startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


def test_content_may_be_parts_or_null():
    parts = [{"type": "text", "text": "Good "}, {"type": "text", "text": "day"}]
    prompt = Chat().whole(
        [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    )

    assert prompt == "<|im_start|>user\nGood day<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"


def test_tools_open_a_system_turn_of_their_own():
    prompt = Chat().prompt([{"role": "user", "content": "Hi"}], [WEATHER])

    assert prompt.startswith("<|im_start|>system\nTools you may call:\n<tools>\n{")
    assert prompt.count("<tools>") == 1


def test_tools_join_the_first_system_message_only():
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
    ]
    prompt = Chat().prompt(messages, [WEATHER])

    assert prompt.startswith("<|im_start|>system\nBe brief.\n\nTools you may call:\n<tools>\n")
    assert prompt.count("<tools>") == 1


def test_arguments_may_be_a_string_or_a_mapping():
    as_string, as_mapping = (
        Chat().whole([{"role": "assistant", "content": None, "tool_calls": [call(arguments)]}])
        for arguments in ('{"city": "Oslo"}', {"city": "Oslo"})
    )

    assert as_string == as_mapping
    assert as_string == (
        "<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
    )


def test_results_of_parallel_calls_share_one_user_turn():
    messages = [
        {"role": "assistant", "content": "Wait.", "tool_calls": [call({}), call({})]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "rainy"},
    ]
    prompt = Chat().prompt(messages, [WEATHER])

    assert "Wait.\n<tool_call>\n" in prompt
    assert "</tool_call>\n<tool_call>" in prompt
    assert prompt.endswith(
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<tool_response>\nrainy\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


def test_no_messages_render_as_nothing():
    assert Chat().whole([]) == ""
