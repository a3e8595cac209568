"""Chat formats by name: each renders its models' exact prompt."""

import pytest

from llm_backend.backends.local.chat_formats import CHAT_FORMATS, format_of_turns
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.errors import InvalidRequest

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Who?"},
]


def rendered(name: str, talk: list[dict[str, str]] = TALK) -> str:
    template = ChatTemplate(CHAT_FORMATS[name].source, bos_token="<s>", eos_token="</s>")
    return template.render(talk)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        (
            "llama-2-chat",
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s>"
            "<s>[INST] Who? [/INST]",
        ),
        ("mistral-instruct", "[INST] Be brief.\n\nHi [/INST] Hello!</s>[INST] Who? [/INST]"),
        ("mistral-v1", " [INST] Be brief.\n\nHi [/INST] Hello!</s> [INST] Who? [/INST]"),
        ("mistral-v3", "[INST] Be brief.\n\nHi[/INST] Hello!</s>[INST] Who?[/INST]"),
        ("mistral-v3-tekken", "[INST]Be brief.\n\nHi[/INST]Hello!</s>[INST]Who?[/INST]"),
        (
            "mistral-v7",
            "[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hi[/INST] Hello!</s>"
            "[INST] Who?[/INST]",
        ),
        (
            "mistral-v7-tekken",
            "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello!</s>[INST]Who?[/INST]",
        ),
        (
            "zephyr",
            "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n"
            "<|user|>\nWho?</s>\n<|assistant|>\n",
        ),
        (
            "vicuna-1.1-chat",
            "Be brief.\n\nUSER: Hi\nASSISTANT: Hello!</s>\nUSER: Who?\nASSISTANT:",
        ),
        (
            "codellama-super-instruct",
            "Source: system\n\n Be brief. <step> Source: user\n\n Hi <step> Source: assistant\n\n "
            "Hello! <step> Source: user\n\n Who? <step> Source: assistant\nDestination: user\n\n",
        ),
        (
            "gemma-instruct",
            "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!"
            "<end_of_turn>\n<start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "deepseek-coder",
            "Be brief.\n### Instruction:\nHi\n### Response:\nHello!\n<|EOT|>\n"
            "### Instruction:\nWho?\n### Response:\n",
        ),
    ],
)
def test_chat_format_renders_the_exact_prompt(name, prompt):
    assert rendered(name) == prompt


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_chat_format_renders_all_messages_in_order(name):
    prompt = rendered(name)
    places = [prompt.index(message["content"]) for message in TALK]

    assert places == sorted(places)


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_user_text_is_not_rendered_as_a_template(name):
    assert "{{ eos_token }}{% x %}" in rendered(
        name, [{"role": "user", "content": "{{ eos_token }}{% x %}"}]
    )


def test_chat_formats_have_the_names_of_other_servers():
    assert set(CHAT_FORMATS) == {
        "llama-2-chat", "codellama-instruct", "codellama-super-instruct", "mistral-instruct",
        "mistrallite", "openchat", "human-assistant", "vicuna-1.0-chat", "vicuna-1.1-chat",
        "vicuna-llava", "chatml", "baichuan-2", "wizard-coder", "zephyr", "stablelm-zephyr",
        "intel-neural", "deepseek-chat", "deepseek-coder", "solar-instruct", "gemma-instruct",
        "mistral-v1", "mistral-v3", "mistral-v3-tekken", "mistral-v7", "mistral-v7-tekken",
    }  # fmt: skip


def test_system_message_without_a_next_turn_becomes_a_user_turn():
    assert rendered("mistral-instruct", TALK[:1]) == "[INST] Be brief. [/INST]"


def test_turns_keep_white_space_at_their_ends():
    own = format_of_turns(user="\n  U:{{ text }}\n\n", assistant="A:{{ text }} ", opening="\n A: ")

    assert ChatTemplate(own.source).render(TALK[1:]) == "\n  U:Hi\n\nA:Hello! \n  U:Who?\n\n\n A: "


def test_chat_format_without_tool_turns_refuses_results():
    with pytest.raises(InvalidRequest, match="has no turns of a `tool`"):
        rendered("zephyr", [{"role": "tool", "content": "4", "tool_call_id": "1"}])
