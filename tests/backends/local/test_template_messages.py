"""Messages of earlier turns in each family's template form."""

import json

import pytest

from llm_backend.backends.local.chat_template import ChatTemplate

CALL = {
    "id": "call_0123456789",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}
TURNS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_0123456789", "content": "sunny"},
]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}

LOOP = "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}"
RESULT = "{% endfor %}{% elif m.role == 'tool' %}"
END = "{% endif %}{% endfor %}"


def rendered(call: str, result: str, *, reasoning: str = "") -> str:
    return ChatTemplate(LOOP + reasoning + call + RESULT + result + END).render(TURNS)


@pytest.mark.parametrize(
    ("call", "result", "expected"),
    [
        (  # Hermes, Qwen: arguments as JSON
            '<tool_call>{"name": "{{ c.function.name }}", "arguments": '
            "{{ c.function.arguments | tojson }}}</tool_call>",
            "<tool_response>{{ m.content }}</tool_response>",
            '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'
            "<tool_response>sunny</tool_response>",
        ),
        (  # Qwen3-Coder, GLM: one by one
            "<function={{ c.function.name }}>{% for k, v in c.function.arguments.items() %}"
            "<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function>",
            "{{ m.content }}",
            "<function=get_weather><parameter=city>Rome</parameter></function>sunny",
        ),
        (  # DeepSeek: text that is put together
            "{{ '<｜tool▁sep｜>' + c['function']['name'] + '\\n' + c['function']['arguments'] }}",
            "{{ '<｜tool▁output▁begin｜>' + m['content'] }}",
            '<｜tool▁sep｜>get_weather\n{"city": "Rome"}<｜tool▁output▁begin｜>sunny',
        ),
        (  # the same with the operator that turns anything into text
            "{{ c.function.name ~ c.function.arguments }}",
            "",
            'get_weather{"city": "Rome"}',
        ),
        (  # Mistral: ids of nine letters and digits
            "{% if c.id | length != 9 %}{{ raise_exception('nine!') }}{% endif %}{{ c.id }}",
            "{{ '=' if m.tool_call_id == messages[1].tool_calls[0].id else '!' }}",
            None,
        ),
        (  # Kimi: ids that hold the name
            "{{ c.id }}<|tool_call_argument_begin|>",
            "{{ m.tool_call_id }}",
            "functions.get_weather:0<|tool_call_argument_begin|>functions.get_weather:0",
        ),
        (  # Llama, Gemma: the result under the function's name
            "{{ c.function.name }}",
            "{{ m.name }}:{{ m.content }}",
            "get_weatherget_weather:sunny",
        ),
        (  # gpt-oss: a name of its own for reasoning, and no content beside it
            "{% if m.content and m.thinking %}{{ raise_exception('both') }}{% endif %}"
            "{{ m.thinking }}",
            "",
            "Hm.",
        ),
    ],
)
def test_call_and_result_are_rendered_in_the_templates_form(call, result, expected):
    prompt = rendered(call, result)

    if expected is None:
        assert len(prompt) == 10
        assert prompt.endswith("=")
    else:
        assert prompt == expected


def test_tools_are_rendered_in_the_system_message():
    source = (
        "{% for m in messages %}{{ m.content }}{% if 'tools' in m %}{{ m['tools'] }}{% endif %}"
    )
    template = ChatTemplate(source.replace("m['tools']", "message['tools']").replace(
        "for m in", "for message in").replace("m.content", "message.content").replace(
        "in m %}", "in message %}") + "{% endfor %}")  # fmt: skip

    alone = template.render([{"role": "user", "content": "Hi"}], [TOOL])
    with_system = template.render(
        [{"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"}], [TOOL]
    )

    assert alone == json.dumps([TOOL["function"]]) + "Hi"
    assert with_system == "Be" + json.dumps([TOOL["function"]]) + "Hi"


def test_parallel_calls_are_split_into_messages():
    source = (
        "{% for m in messages %}{% if m.tool_calls and m.tool_calls | length > 1 %}"
        "{{ raise_exception('only single tool-calls at once!') }}{% endif %}{{ m.content }}"
        "{{ m.tool_calls[0].id if m.tool_calls }}{{ m.tool_call_id }};{% endfor %}"
    )
    calls = [{**CALL, "id": name} for name in ("a", "b")]
    results = [{"role": "tool", "tool_call_id": name, "content": "R"} for name in ("b", "a", "c")]
    turns = [{"role": "assistant", "content": "I", "tool_calls": calls}, *results, TURNS[0]]

    assert ChatTemplate(source).render(turns) == "Ia;Ra;b;Rb;Rc;Weather?;"


def test_arguments_of_earlier_calls_keep_whole_decimals():
    call = {**CALL, "function": {"name": "f", "arguments": '{"a": 9007199254740993.0, "b": 0.5}'}}
    template = ChatTemplate(LOOP + "{{ c.function.arguments | tojson }}" + RESULT + END)

    prompt = template.render([TURNS[0], {**TURNS[1], "tool_calls": [call]}])

    assert prompt == '{"a": 9007199254740993, "b": 0.5}'
