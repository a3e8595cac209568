"""Sample output of models of every family, and the functions that it calls."""

from typing import Any

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: dict[str, dict[str, Any]] = {"get_weather": CITY, "ping": {}}

PARIS = ("get_weather", {"city": 'Pa"ris', "days": 2})
ROME = ("get_weather", {"city": "Rome", "unit": "C"})
PING: tuple[str, dict[str, Any]] = ("ping", {})

_JSON = r'{"city": "Pa\"ris", "days": 2}'
_ROME = '{"city": "Rome", "unit": "C"}'

ONE = {
    "hermes": f'<tool_call>\n{{"name": "get_weather", "arguments": {_JSON}}}\n</tool_call>',
    "qwen3-coder": (
        '<tool_call>\n<function=get_weather>\n<parameter=city>\nPa"ris\n</parameter>\n'
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>"
    ),
    "glm": (
        '<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Pa"ris</arg_value>\n'
        "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
    ),
    "llama": f'{{"name": "get_weather", "parameters": {_JSON}}}',
    "llama-function": f"<function=get_weather>{_JSON}</function>",
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{_JSON}",
    "mistral-list": f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_JSON}}}]',
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{_JSON}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{_JSON}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        f"<|tool_call_argument_begin|>{_JSON}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "gemma": '```tool_code\nget_weather(city="Pa\\"ris", days=2)\n```',
    "function-gemma": (
        '<start_function_call>call:get_weather{city:<escape>Pa"ris<escape>,days:2}'
        "<end_function_call>"
    ),
    "gemma-4": '<|tool_call>call:get_weather{city:<|"|>Pa"ris<|"|>,days:2}<tool_call|>',
    "granite": f'<|tool_call|>[{{"name": "get_weather", "arguments": {_JSON}}}]',
    "phi-4": f'<|tool_call|>[{{"name": "get_weather", "arguments": {_JSON}}}]<|/tool_call|>',
    "functools": f'functools[{{"name": "get_weather", "arguments": {_JSON}}}]',
    "lfm2": '<|tool_call_start|>[get_weather(city="Pa\\"ris", days=2)]<|tool_call_end|>',
    "apriel": f'<tool_calls>[{{"name": "get_weather", "arguments": {_JSON}}}]</tool_calls>',
    "seed": (
        '<seed:tool_call>\n<function=get_weather>\n<parameter=city>\nPa"ris\n</parameter>\n'
        "<parameter=days>\n2\n</parameter>\n</function>\n</seed:tool_call>"
    ),
    "nemotron": f'<TOOLCALL>[{{"name": "get_weather", "arguments": {_JSON}}}]</TOOLCALL>',
    "command": (
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        f'"parameters": {_JSON}}}\n]<|END_ACTION|>'
    ),
    "command-r": (
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n'
        f'        "parameters": {_JSON}\n    }}\n]```'
    ),
    "gpt-oss": (
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>" + _JSON
    ),
    "json": f'{{"name": "get_weather", "arguments": {_JSON}}}',
}
"""A call with PARIS, in each family's markup."""

TWO = {
    "hermes": (
        f'<tool_call>\n{{"name": "get_weather", "arguments": {_ROME}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    ),
    "qwen3-coder": (
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
        "<parameter=unit>\nC\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=ping>\n</function>\n</tool_call>"
    ),
    "glm": (
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n"
        "<arg_key>unit</arg_key>\n<arg_value>C</arg_value>\n</tool_call>\n"
        "<tool_call>ping\n</tool_call>"
    ),
    "llama": (
        f'{{"name": "get_weather", "parameters": {_ROME}}}; {{"name": "ping", "parameters": {{}}}}'
    ),
    "llama-function": f"<function=get_weather>{_ROME}</function><function=ping>{{}}</function>",
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{_ROME}[TOOL_CALLS]ping[ARGS]{{}}",
    "mistral-list": (
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]'
    ),
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{_ROME}\n```<｜tool▁call▁end｜>\n"
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{_ROME}"
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>ping<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>"
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        f"<|tool_call_argument_begin|>{_ROME}<|tool_call_end|><|tool_call_begin|>functions.ping:1"
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "gemma": '```tool_code\nget_weather(city="Rome", unit="C")\nping()\n```',
    "function-gemma": (
        "<start_function_call>call:get_weather{city:<escape>Rome<escape>,unit:<escape>C<escape>}"
        "<end_function_call><start_function_call>call:ping{}<end_function_call>"
    ),
    "gemma-4": (
        '<|tool_call>call:get_weather{city:<|"|>Rome<|"|>,unit:<|"|>C<|"|>}<tool_call|>'
        "<|tool_call>call:ping{}<tool_call|>"
    ),
    "granite": (
        f'<|tool_call|>[{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]'
    ),
    "phi-4": (
        f'<|tool_call|>[{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]<|/tool_call|>'
    ),
    "functools": (
        f'functools[{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]'
    ),
    "lfm2": '<|tool_call_start|>[get_weather(city="Rome", unit="C"), ping()]<|tool_call_end|>',
    "apriel": (
        f'<tool_calls>[{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]</tool_calls>'
    ),
    "seed": (
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n"
        "<parameter=unit>\nC\n</parameter>\n</function>\n</seed:tool_call>\n"
        "<seed:tool_call>\n<function=ping>\n</function>\n</seed:tool_call>"
    ),
    "nemotron": (
        f'<TOOLCALL>[{{"name": "get_weather", "arguments": {_ROME}}}, '
        '{"name": "ping", "arguments": {}}]</TOOLCALL>'
    ),
    "command": (
        '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        f'"parameters": {_ROME}}},\n    {{"tool_call_id": "1", "tool_name": "ping", '
        '"parameters": {}}\n]<|END_ACTION|>'
    ),
    "command-r": (
        'Action: ```json\n[\n    {\n        "tool_name": "get_weather",\n'
        f'        "parameters": {_ROME}\n    }},\n    {{\n        "tool_name": "ping",\n'
        '        "parameters": {}\n    }\n]```'
    ),
}
"""ROME, then PING; the families that are missing call one function at a time."""

SLIPS = [
    ("llama", '<|python_start|>{"name": "get_weather", "parameters": ' + _JSON + "}"),
    ("hermes", '<tool_call>{"arguments": {"city": "Pa\\"ris", "days": 2}, "name": "get_weather"}'),
    ("hermes", '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Pa\\\\\\"ris\\", '
               '\\"days\\": 2}"}</tool_call>'),
    ("hermes", '<tool_call>{"type": "function", "function": {"name": "get_weather", "arguments": '
               '{"city": "Pa\\"ris", "days": 2}}}</tool_call>'),
    ("qwen3-coder", '<function=get_weather><parameter=city>Pa"ris</parameter><parameter=days>2'
                    "</parameter></function>"),
    ("llama", '<|python_tag|>{"name": "get_weather", "parameters": ' + _JSON + "}"),
    ("llama", "<|python_tag|>get_weather.call(city='Pa\"ris', days=2)"),
    ("gemma", "```tool_code\nget_weather('Pa\"ris', 2)\n```"),
    ("mistral", "[TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]" + _JSON),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": ' + _JSON + ', "id": "x"}]'),
    ("phi-4", 'functools[{"name": "get_weather", "arguments": ' + _JSON + "}]"),
    ("json", '```json\n{"name": "get_weather", "arguments": ' + _JSON + "}\n```"),
    ("gpt-oss", "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions."
                "get_weather<|channel|>commentary json<|message|>" + _JSON + "<|call|>"),
    ("deepseek", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n" + _JSON),
]  # fmt: skip
"""A call with PARIS, in variants that models of the family also generate."""
