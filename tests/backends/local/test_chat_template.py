"""Chat templates from untrusted files: rendered in a sandbox, or refused."""

import pytest

from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.errors import InvalidRequest, UnsupportedField

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def test_model_without_a_template_uses_chatml():
    prompt = ChatTemplate(None).render(HELLO)

    assert prompt == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_template_gets_arguments_as_values():
    template = ChatTemplate("{{ messages[0].tool_calls[0].function.arguments.city }}{{ tools }}")
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"city": "Rome"}'},
    }

    prompt = template.render([{"role": "assistant", "content": None, "tool_calls": [call]}])

    assert prompt == "RomeNone"


def test_template_gets_invalid_arguments_as_text():
    template = ChatTemplate("{{ messages[0].tool_calls[0].function.arguments }}")
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{oops"}}

    assert template.render([{"role": "assistant", "tool_calls": [call]}]) == "{oops"


def test_template_refusal_reaches_the_client():
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}")

    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        template.render(HELLO)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].content.nothing.deeper }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 1 + 'a' }}",
        "{{ 1 / 0 }}",
        "{{ messages[0].content | truncate(messages | length) }}",
        "{{ messages * 10**15 }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    ],
)
def test_template_error_is_an_invalid_request(source):
    with pytest.raises(InvalidRequest):
        ChatTemplate(source).render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{% break %}",
        "{% if a %}" * 150 + "{% endif %}" * 150,
        "{{" + "(" * 3_000 + "1" + ")" * 3_000 + "}}",
    ],
    ids=["for", "break", "nested", "brackets"],
)
def test_invalid_template_source_is_an_invalid_request(source):
    with pytest.raises(InvalidRequest, match="template") as caught:
        ChatTemplate(source)
    assert caught.value.param == "model"


def test_template_without_tools_refuses_tools():
    with pytest.raises(UnsupportedField) as caught:
        ChatTemplate("{{ messages[0].content }}").render(HELLO, [TOOL])
    assert caught.value.param == "tools"


def test_template_that_writes_bos_is_detected():
    template = ChatTemplate("{{ bos_token }}{{ messages[0].content }}", bos_token="<s>")

    assert template.writes_bos(template.render(HELLO))
    assert not ChatTemplate(None, bos_token="<s>").writes_bos("Hello")


def test_template_of_content_parts_gets_parts():
    parts = (
        "{% for message in messages %}{% for part in message.content %}"
        "{% if part.type == 'text' %}<{{ part.text }}>{% endif %}{% endfor %}{% endfor %}"
    )
    both = "{% for m in messages %}{{ m.content if m.content is string else '?' }}{% endfor %}"
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]

    assert ChatTemplate(parts).render(said) == "<Hello><Hi>"
    assert ChatTemplate(both).render(said) == "HelloHi"
