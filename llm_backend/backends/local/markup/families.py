"""Tool call markup of each model family as data, and its detection by the chat template.

The template is the only part of every model file that shows how the model was trained to write
calls. A family is detected by its signature in the template. If a template has the signatures of
two families, the more specific one comes first in the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llm_backend.backends.local.markup.family import (
    ArgumentStyle,
    CallMarkup,
    CallNotation,
    Markup,
    Thinking,
    Tools,
)
from llm_backend.backends.local.markup.harmony import HARMONY, harmony_messages
from llm_backend.backends.local.markup.json_calls import json_calls
from llm_backend.backends.local.markup.literal_calls import gemma_calls, python_calls
from llm_backend.backends.local.markup.named_calls import (
    deepseek_calls,
    kimi_calls,
    mistral_calls,
    tag_json_calls,
)
from llm_backend.backends.local.markup.reader import MarkupReader, Steps
from llm_backend.backends.local.markup.tag_calls import function_calls, tag_calls


@dataclass(frozen=True, kw_only=True)
class Family:
    """Markup of a family's calls. A template is the family's if it contains all texts of one of
    `signatures`."""

    calls: CallMarkup
    signatures: tuple[tuple[str, ...], ...]
    is_harmony: bool = False


_OBJECT = '{"name": "{name}", "arguments": {arguments}}'
_TAG, _TAG_END = "<tool_call>", "</tool_call>"
_tool_call_tags = tag_calls(_TAG_END)
_TAGS = CallNotation(
    begin=f"{_TAG}\n",
    call=_OBJECT,
    between=f"\n{_TAG_END}\n{_TAG}\n",
    end=f"\n{_TAG_END}",
)


def _list_of(begin: str, end: str, call: str = _OBJECT) -> CallNotation:
    return CallNotation(begin=begin, call=call, between=", ", end=end)


_LLAMA_JSON = json_calls(separators=(";", ","))
_LLAMA_BARE = json_calls(is_known_only=True, separators=(";", ","))
_LLAMA_BUILTIN = python_calls()


def _llama_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads calls as JSON; after the mark also Python calls of Llama's built-in tools."""
    yield from reader.skip_space()
    if opening and reader.current != "{":
        yield from _LLAMA_BUILTIN(reader, opening, tools)
    else:
        yield from (_LLAMA_JSON if opening else _LLAMA_BARE)(reader, opening, tools)


def _qwen_coder_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads calls of Qwen Coder, whose models sometimes omit the tag around the function."""
    body = function_calls if opening == "<function=" else _tool_call_tags
    yield from body(reader, opening, tools)


_DEEPSEEK = (
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)  # fmt: skip
_KIMI = (
    "<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>",
    "<|tool_call_end|>", "<|tool_calls_section_end|>",
)  # fmt: skip

FAMILIES: Mapping[str, Family] = {
    "gpt-oss": Family(
        signatures=(("<|channel|>", "<|message|>"),),
        is_harmony=True,
        calls=CallMarkup(
            markers=HARMONY,
            parser=json_calls(),
            notation=CallNotation(
                begin="<|channel|>commentary to=functions.",
                call="{name} <|constrain|>json<|message|>{arguments}",
                between=None,
            ),
        ),
    ),
    "deepseek-v3.1": Family(
        signatures=(
            ("<｜tool▁calls▁begin｜>", "'<｜tool▁call▁begin｜>'+ tool['function']['name']"),
            ("<｜tool▁calls▁begin｜>", "'<｜tool▁call▁begin｜>' + tool['function']['name']"),
        ),
        calls=CallMarkup(
            openings=_DEEPSEEK[:2],
            markers=_DEEPSEEK,
            parser=deepseek_calls,
            notation=CallNotation(
                begin="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>",
                call="{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>",
                between="<｜tool▁call▁begin｜>",
                end="<｜tool▁calls▁end｜>",
            ),
        ),
    ),
    "deepseek": Family(
        signatures=(("<｜tool▁calls▁begin｜>",),),
        calls=CallMarkup(
            openings=_DEEPSEEK[:2],
            markers=_DEEPSEEK,
            parser=deepseek_calls,
            notation=CallNotation(
                begin="<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                call="{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>",
                between="\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
                end="<｜tool▁calls▁end｜>",
            ),
        ),
    ),
    "kimi": Family(
        signatures=(("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),),
        calls=CallMarkup(
            openings=_KIMI[:1],
            markers=_KIMI,
            parser=kimi_calls,
            notation=CallNotation(
                begin=_KIMI[0] + _KIMI[1],
                call=f"functions.{{name}}:{{number}}{_KIMI[2]}{{arguments}}{_KIMI[3]}",
                between=_KIMI[1],
                end=_KIMI[4],
            ),
        ),
    ),
    "command": Family(
        signatures=(("<|START_ACTION|>",),),
        calls=CallMarkup(
            openings=("<|START_ACTION|>",),
            markers=("<|START_ACTION|>", "<|END_ACTION|>"),
            parser=json_calls("<|END_ACTION|>"),
            notation=CallNotation(
                begin="<|START_ACTION|>[\n    ",
                call='{"tool_call_id": "{number}", "tool_name": "{name}", '
                '"parameters": {arguments}}',
                between=",\n    ",
                end="\n]<|END_ACTION|>",
            ),
        ),
    ),
    "command-r": Family(
        signatures=(("Action:", "```json", "tool_name"),),
        calls=CallMarkup(
            openings=("Action: ```json", "Action:```json", "Action:\n```json"),
            parser=json_calls("```"),
            notation=CallNotation(
                begin="Action: ```json\n[\n    ",
                call='{\n        "tool_name": "{name}",\n        "parameters": {arguments}\n    }',
                between=",\n    ",
                end="\n]```",
            ),
        ),
    ),
    "mistral": Family(
        signatures=(("[TOOL_CALLS]", "[ARGS]"),),
        calls=CallMarkup(
            openings=("[TOOL_CALLS]",),
            markers=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
            parser=mistral_calls,
            notation=CallNotation(
                begin="[TOOL_CALLS]", call="{name}[ARGS]{arguments}", between="[TOOL_CALLS]"
            ),
        ),
    ),
    "mistral-list": Family(
        signatures=(("[TOOL_CALLS]",),),
        calls=CallMarkup(
            openings=("[TOOL_CALLS]",),
            markers=("[TOOL_CALLS]",),
            parser=mistral_calls,
            notation=_list_of("[TOOL_CALLS][", "]"),
        ),
    ),
    "gemma-4": Family(
        signatures=(("<|tool_call>", "<tool_call|>"),),
        calls=CallMarkup(
            openings=("<|tool_call>",),
            markers=("<|tool_call>", "<tool_call|>", '<|"|>'),
            parser=gemma_calls('<|"|>', "<tool_call|>"),
            notation=CallNotation(
                begin="<|tool_call>",
                call="call:{name}{arguments}",
                between="<tool_call|><|tool_call>",
                end="<tool_call|>",
                arguments=ArgumentStyle.GEMMA,
                quote='<|"|>',
            ),
        ),
    ),
    "function-gemma": Family(
        signatures=(("<start_function_call>",),),
        calls=CallMarkup(
            openings=("<start_function_call>",),
            markers=("<start_function_call>", "<end_function_call>", "<escape>"),
            parser=gemma_calls("<escape>", "<end_function_call>"),
            notation=CallNotation(
                begin="<start_function_call>",
                call="call:{name}{arguments}",
                between="<end_function_call><start_function_call>",
                end="<end_function_call>",
                arguments=ArgumentStyle.GEMMA,
                quote="<escape>",
            ),
        ),
    ),
    "phi-4": Family(
        signatures=(("<|tool_call|>", "<|/tool_call|>"), ("<|tool|>", "<|/tool|>")),
        calls=CallMarkup(
            openings=("<|tool_call|>", "functools"),
            markers=("<|tool_call|>", "<|/tool_call|>"),
            parser=json_calls("<|/tool_call|>"),
            notation=_list_of("<|tool_call|>[", "]<|/tool_call|>"),
        ),
    ),
    "functools": Family(
        signatures=(("functools",),),
        calls=CallMarkup(
            openings=("functools",), parser=json_calls(), notation=_list_of("functools[", "]")
        ),
    ),
    "granite": Family(
        signatures=(("<|tool_call|>",),),
        calls=CallMarkup(
            openings=("<|tool_call|>",),
            markers=("<|tool_call|>",),
            parser=json_calls(),
            notation=_list_of("<|tool_call|>[", "]"),
        ),
    ),
    "lfm2": Family(
        signatures=(("<|tool_call_start|>",), ("<|tool_list_start|>",)),
        calls=CallMarkup(
            openings=("<|tool_call_start|>",),
            markers=("<|tool_call_start|>", "<|tool_call_end|>"),
            parser=python_calls("<|tool_call_end|>"),
            notation=CallNotation(
                begin="<|tool_call_start|>[",
                call="{name}({arguments})",
                between=", ",
                end="]<|tool_call_end|>",
                arguments=ArgumentStyle.KEYWORDS,
            ),
        ),
    ),
    "qwen3-coder": Family(
        signatures=(("<tool_call>", "<function=", "<parameter="),),
        calls=CallMarkup(
            openings=("<tool_call>", "<function="),
            markers=(_TAG, _TAG_END),
            parser=_qwen_coder_calls,
            notation=replace(
                _TAGS,
                call="<function={name}>\n{arguments}</function>",
                arguments=ArgumentStyle.PARAMETER_TAGS,
            ),
        ),
    ),
    "seed": Family(
        signatures=(("<seed:tool_call>",),),
        calls=CallMarkup(
            openings=("<seed:tool_call>",),
            markers=("<seed:tool_call>", "</seed:tool_call>"),
            parser=tag_calls("</seed:tool_call>"),
            notation=CallNotation(
                begin="<seed:tool_call>\n",
                call="<function={name}>\n{arguments}</function>",
                between="\n</seed:tool_call>\n<seed:tool_call>\n",
                end="\n</seed:tool_call>",
                arguments=ArgumentStyle.PARAMETER_TAGS,
            ),
        ),
    ),
    "glm": Family(
        signatures=(("<arg_key>", "<arg_value>"),),
        calls=CallMarkup(
            openings=("<tool_call>",),
            markers=(_TAG, _TAG_END, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
            parser=_tool_call_tags,
            notation=CallNotation(
                begin=_TAG,
                call="{name}\n{arguments}",
                between=f"{_TAG_END}\n{_TAG}",
                end=_TAG_END,
                arguments=ArgumentStyle.KEY_VALUE_TAGS,
            ),
        ),
    ),
    "hermes": Family(
        signatures=(("<tool_call>",),),
        calls=CallMarkup(
            openings=("<tool_call>",),
            markers=(_TAG, _TAG_END),
            parser=_tool_call_tags,
            notation=_TAGS,
        ),
    ),
    "nemotron": Family(
        signatures=(("<TOOLCALL>",),),
        calls=CallMarkup(
            openings=("<TOOLCALL>",),
            markers=("<TOOLCALL>", "</TOOLCALL>"),
            parser=json_calls("</TOOLCALL>"),
            notation=_list_of("<TOOLCALL>[", "]</TOOLCALL>"),
        ),
    ),
    "apriel": Family(
        signatures=(("<tool_calls>[",),),
        calls=CallMarkup(
            openings=("<tool_calls>",),
            markers=("<tool_calls>", "</tool_calls>"),
            parser=json_calls("</tool_calls>"),
            notation=_list_of("<tool_calls>[", "]</tool_calls>"),
        ),
    ),
    "gemma": Family(
        signatures=(("tool_code",),),
        calls=CallMarkup(
            openings=("```tool_code\n", "```python\n"),
            parser=python_calls("```", is_known_only=True),
            notation=CallNotation(
                begin="```tool_code\n",
                call="{name}({arguments})",
                between="\n",
                end="\n```",
                arguments=ArgumentStyle.KEYWORDS,
            ),
        ),
    ),
    "llama-function": Family(
        signatures=(("<function=", "</function>"),),
        calls=CallMarkup(
            openings=("<function=",),
            markers=("<|python_tag|>",),
            parser=tag_json_calls,
            notation=CallNotation(
                begin="<function=",
                call="{name}>{arguments}</function>",
                between="<function=",
            ),
        ),
    ),
    "llama": Family(
        signatures=(
            ("<|python_tag|>",),
            ("<|start_header_id|>", '"parameters"'),
            ("<|eom_id|>",),
            ("<|header_start|>", '"parameters"'),
        ),
        calls=CallMarkup(
            openings=("<|python_tag|>", "<|python_start|>"),
            is_bare=True,
            markers=("<|python_tag|>", "<|python_start|>", "<|python_end|>"),
            parser=_llama_calls,
            notation=CallNotation(
                call='{"name": "{name}", "parameters": {arguments}}', between=None
            ),
        ),
    ),
    "json": Family(
        signatures=(),
        calls=CallMarkup(
            openings=("```json\n",),
            is_bare=True,
            parser=json_calls("```", is_known_only=True),
            notation=CallNotation(call=_OBJECT, between=None),
        ),
    ),
}
"""Families by name. The last one is for templates without a signature of the others."""

THINKING = (
    Thinking(
        opening="<|START_THINKING|>", closing="<|END_THINKING|>", signature="<|START_THINKING|>"
    ),
    Thinking(opening="<|channel>thought", closing="<channel|>", signature="<|channel>thought"),
    Thinking(opening="[THINK]", closing="[/THINK]", signature="[THINK]"),
    Thinking(opening="<seed:think>", closing="</seed:think>", signature="<seed:think>"),
    Thinking(
        opening="<think>",
        closing="</think>",
        signature="<response>",
        answer=("<response>", "</response>"),
    ),
    Thinking(opening="<think>", closing="</think>", signature="</think>"),
    Thinking(
        opening="Here is my thought process:",
        closing="Here is my response:",
        signature="Here is my thought process",
    ),
)
"""Reasoning markup, most specific first."""


def markup_of(template: str, family: str | None = None) -> Markup:
    """Detects a model's markup from its chat template; `family` overrides the markup of calls."""
    found = FAMILIES[family] if family is not None else _family_of(template)
    thinking = next((one for one in THINKING if one.signature in template), None)
    if found.is_harmony:
        return Markup(calls=found.calls, messages=harmony_messages)
    return Markup(calls=found.calls, thinking=thinking)


def _family_of(template: str) -> Family:
    for family in FAMILIES.values():
        if any(all(text in template for text in group) for group in family.signatures):
            return family
    return FAMILIES["json"]
