"""Model families, detected from chat templates."""

import pytest

from llm_backend.backends.local.markup import FAMILIES, markup_of

TEMPLATES = {
    "hermes": "<tool_call>\\n{{ call | tojson }}\\n</tool_call>",
    "qwen3-coder": "<tool_call>\\n<function={{ name }}>\\n<parameter={{ key }}>",
    "glm": "<tool_call>{{ name }}<arg_key>{{ key }}</arg_key><arg_value>",
    "llama": '<|start_header_id|>ipython {"name": x, "parameters": y} <|eom_id|>',
    "llama-function": "<function={{ name }}>{{ arguments }}</function>",
    "mistral": "[TOOL_CALLS]{{ name }}[ARGS]{{ arguments }}",
    "mistral-list": "[TOOL_CALLS] [{{ calls }}]",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['type'] + '<｜tool▁sep｜>",
    "deepseek-v3.1": (
        "{{'<｜tool▁calls▁begin｜>'}}"
        "{{'<｜tool▁call▁begin｜>'+ tool['function']['name'] + '<｜tool▁sep｜>'}}"
    ),
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>{{ id }}<|tool_call_argument_begin|>",
    "gemma": "```tool_code",
    "function-gemma": "<start_function_call>call:{{ name }}",
    "gemma-4": "<|tool_call>call:{{ name }}<tool_call|>",
    "granite": "<|tool_call|>{{ calls | tojson }}",
    "phi-4": "<|tool|>{{ tools }}<|/tool|>",
    "functools": "functools[{{ calls }}]",
    "apriel": "<tool_calls>[{{ calls }}]</tool_calls>",
    "seed": "<seed:tool_call><function={{ name }}>",
    "lfm2": "<|tool_call_start|>",
    "nemotron": "<TOOLCALL>[{{ calls }}]</TOOLCALL>",
    "command": "<|START_THINKING|><|START_ACTION|>[]<|END_ACTION|>",
    "command-r": 'Action: ```json [{"tool_name": x}]```',
    "gpt-oss": "<|start|>assistant<|channel|>final<|message|>",
    "json": "{{ tools | tojson }}",
}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_family_is_detected_from_its_template(family):
    assert markup_of(TEMPLATES[family]).calls is FAMILIES[family].calls


def test_named_format_overrides_detection():
    assert markup_of(TEMPLATES["mistral"], "hermes").calls is FAMILIES["hermes"].calls


def test_prompt_that_opens_reasoning_is_detected():
    markup = markup_of("<think></think>")

    assert markup.opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not markup.opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
