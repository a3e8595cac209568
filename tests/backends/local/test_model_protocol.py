"""Model protocol: prompts, grammars and parsers of chats."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from llm_backend.backends.base import Chat, JsonContent
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.local.markup import CallBegin, markup_of
from llm_backend.backends.local.model_protocol import ModelProtocol, ProtocolCache
from llm_backend.backends.schemas import SchemaBudget, SchemaLimits, lower_schema
from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.structured_output import structure_from
from llm_backend.errors import InvalidRequest

ASK = [{"role": "user", "content": "Weather?"}]
SWITCHED = (
    "{{ tools }}{% if enable_thinking is defined %}[{{ enable_thinking }}]{% endif %}"
    "{{ reasoning_effort }}<think>\n{# </think> #}"
)


def tool(name: str, **more: object) -> dict:
    function = {"name": name, "parameters": {"type": "object", "properties": {}}, **more}
    return {"type": "function", "function": function}


def protocol(source: str, family: str = "hermes", **tokens: int) -> ModelProtocol:
    controls = frozenset(tokens)
    template = ChatTemplate(source)
    return ModelProtocol(template, template, markup_of(source, family), tokens, controls)


def test_answer_has_no_grammar_unless_a_call_is_required():
    one = protocol("{{ tools }}")

    assert one.render(Chat(messages=ASK)).grammar is None
    assert one.render(Chat(messages=ASK)).parser() is None
    assert one.render(Chat(messages=ASK, tools=[tool("f")])).grammar is None
    assert one.render(Chat(messages=ASK, tools=[tool("f")])).parser() is not None


def test_grammar_has_only_callable_functions():
    tools = [tool("first"), tool("second")]
    asked = Chat(messages=ASK, tools=tools, callable_names=frozenset({"second"}))

    prompt = protocol("{{ tools }}").render(asked)

    assert "second" in prompt.grammar
    assert "first" not in prompt.grammar
    assert "first" in prompt.text


def test_strict_schema_is_in_the_grammar_and_not_in_the_prompt():
    asked = Chat(messages=ASK, tools=[tool("f", strict=True), tool("g", strict=None)])

    prompt = protocol("{{ tools | tojson }}").render(asked)

    assert prompt.grammar.count('"lenient": true') == 1
    assert "strict" not in prompt.text


def test_strict_schema_that_cannot_be_enforced_is_refused_by_its_param():
    code = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[A-Z]$"}}}
    tools = [tool("f"), tool("g", strict=True, parameters=code)]

    with pytest.raises(InvalidRequest) as caught:
        protocol("{{ tools }}", "qwen3-coder").render(Chat(messages=ASK, tools=tools))
    assert caught.value.param == "tools[1].function.parameters.properties.code.pattern"
    assert (
        "[A-Z]" in protocol("{{ tools }}", "hermes").render(Chat(messages=ASK, tools=tools)).grammar
    )


def test_referenced_parameters_are_enforced_and_parsed():
    schema = {
        "$ref": "#/$defs/f",
        "$defs": {"f": {"type": "object", "properties": {"days": {"type": "integer"}}}},
    }
    asked = Chat(messages=ASK, tools=[tool("f", strict=True, parameters=schema)])

    prompt = protocol("{{ tools }}", "qwen3-coder").render(asked)

    assert "<parameter=days>" in prompt.grammar
    assert prompt.tools["f"]["properties"] == {"days": {"type": "integer"}}


def test_json_grammar_has_shared_definitions_once():
    refers = {f"p{at}": {"$ref": "#/$defs/a"} for at in range(100)}
    definitions = {"a": {"pattern": "x" * 1000, "type": "string"}}
    schema = {"type": "object", "properties": refers, "$defs": definitions}
    asked = Chat(messages=ASK, tools=[tool("f", strict=True, parameters=schema)])

    prompt = protocol("{{ tools | length }}").render(asked)

    assert prompt.grammar.count("x" * 1000) == 1
    assert prompt.tools["f"]["properties"]["p0"]["type"] == "string"


def test_marks_that_are_control_tokens_are_visible_tokens():
    one = protocol("{{ tools }}", **{"<tool_call>": 7, "</tool_call>": 8})

    prompt = one.render(Chat(messages=ASK, tools=[tool("f")], must_call=True))

    assert prompt.visible_tokens == [7, 8]
    assert "<[7]>" in prompt.grammar
    assert one.render(Chat(messages=ASK)).visible_tokens == []


def test_tool_template_of_the_file_renders_tools():
    plain, with_tools = ChatTemplate("plain"), ChatTemplate("{{ tools[0].function.name }}")
    one = ModelProtocol(plain, with_tools, markup_of("<tool_call>"), {}, frozenset())

    assert one.render(Chat(messages=ASK)).text == "plain"
    assert one.render(Chat(messages=ASK, tools=[tool("f")])).text == "f"


def test_bare_calls_exclude_json_content():
    content = JsonContent(schema={"type": "object"}, field="response_format")
    asked = Chat(messages=ASK, tools=[tool("f")], grammar=content)

    with pytest.raises(InvalidRequest) as caught:
        protocol("{{ tools }}", "llama").render(asked)
    assert caught.value.param == "response_format"
    assert "json_content" in protocol("{{ tools }}").render(asked).grammar


def test_effort_and_template_kwargs_reach_the_template():
    one = protocol(SWITCHED)

    assert "[False]" in one.render(Chat(messages=ASK, reasoning_effort="none")).text
    assert "[True]high" in one.render(Chat(messages=ASK, reasoning_effort="xhigh")).text
    switched = Chat(messages=ASK, template_kwargs={"enable_thinking": "by hand"})
    assert "[by hand]" in one.render(switched).text


def test_effort_is_checked_by_the_template_that_renders_the_chat():
    plain, switched = ChatTemplate("</think>{{ tools }}"), ChatTemplate(SWITCHED)
    quiet = Chat(messages=ASK, reasoning_effort="none")
    quiet_with_tools = Chat(messages=ASK, reasoning_effort="none", tools=[tool("f")])
    markup = markup_of(SWITCHED)
    only_with_tools = ModelProtocol(plain, switched, markup, {}, frozenset())
    only_without = ModelProtocol(switched, plain, markup, {}, frozenset())

    assert "[False]" in only_with_tools.render(quiet_with_tools).text
    assert "[False]" in only_without.render(quiet).text
    for one, chat in ((only_with_tools, quiet), (only_without, quiet_with_tools)):
        with pytest.raises(InvalidRequest, match="always reasons"):
            one.render(chat)


def test_parser_begins_in_reasoning_opened_by_the_prompt():
    parser = protocol(SWITCHED).render(Chat(messages=ASK)).parser()

    assert parser.is_reasoning


@pytest.mark.parametrize(("source", "effort"), [("{{ tools }}", "low"), ("</think>", "none")])
def test_unsupported_effort_is_refused(source, effort):
    with pytest.raises(InvalidRequest) as caught:
        protocol(source).render(Chat(messages=ASK, reasoning_effort=effort))
    assert caught.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("source", "effort"), [("hello", "low"), ("<think>{{ 1 }}</think>", "none")]
)
def test_optional_unsupported_effort_is_ignored(source, effort):
    asked = Chat(messages=ASK, reasoning_effort=effort, must_take_effort=False)

    assert protocol(source).render(asked).text == protocol(source).render(Chat(messages=ASK)).text


def test_effort_none_is_valid_without_reasoning():
    assert protocol("hello").render(Chat(messages=ASK, reasoning_effort="none")).text == "hello"


def test_variant_openings_are_not_calls_under_a_grammar():
    text = "<function=f></function>"
    free = Chat(messages=ASK, tools=[tool("f")])
    held = Chat(messages=ASK, tools=[tool("f", strict=True)])
    one = protocol("{{ tools }}", "qwen3-coder")

    called = [CallBegin("f") in one.render(chat).parser().feed(text) for chat in (free, held)]

    assert called == [True, False]


class Known:
    """Engine with model info, which counts requests for tokens."""

    def __init__(self) -> None:
        self.asked = 0

    async def ready(self):
        return SimpleNamespace(
            chat_template="{{ messages }}", tool_template=None, bos_token="", eos_token="",
            control_tokens=[],
        )  # fmt: skip

    async def tokenize(self, mark: str) -> list[int]:
        self.asked += 1
        await asyncio.sleep(0)
        return [1]


async def test_protocol_is_created_once_for_each_engine():
    speech, first, second = ProtocolCache(None, None), Known(), Known()
    found = await asyncio.gather(*(speech.get(first) for _ in range(5)))
    asked = first.asked
    other = await speech.get(second)

    assert len(set(map(id, found))) == 1
    assert asked == second.asked
    assert other is not found[0]


def test_parameters_that_were_compiled_for_the_request_are_not_compiled_again():
    strict = tool("f", strict=True)
    lowered = lower_schema(strict["function"]["parameters"], ("tools", 0))
    asked = Chat(messages=ASK, tools=[strict], lowered_calls={"f": lowered})

    (function,) = protocol("{{ tools }}").render(asked).grammar_field.functions

    assert function.lowered is lowered


@pytest.mark.parametrize("family", ["qwen3-coder", "glm", "function-gemma", "gemma"])
def test_parameters_of_markup_that_is_not_json_are_compiled_once(family):
    schema = {
        "$ref": "#/$defs/f",
        "$defs": {
            "f": {
                "type": "object",
                "properties": {"days": {"$ref": "#/$defs/days"}, "hours": {"type": "integer"}},
            },
            "days": {"type": "array", "items": {"type": "integer", "maximum": 9}},
        },
    }
    strict = tool("f", strict=True, parameters=schema)
    lowered = lower_schema(schema, ("tools", 0, "function", "parameters"))
    asked = Chat(messages=ASK, tools=[strict], lowered_calls={"f": lowered})

    field = protocol("{{ tools }}", family).render(asked).grammar_field

    parts = set(map(id, lowered.parts))
    assert {id(one) for one in field.functions[0].parameters["properties"].values()} <= parts
    place = "tools[0].function.parameters.$defs"
    assert field.param_at("call_0_0_value/items/maximum") == f"{place}.days.items.maximum"
    assert field.param_at("call_0_1_value") == f"{place}.f.properties.hours"


def test_functions_of_a_chat_share_the_limits_of_its_schemas():
    wide = {"type": "object", "properties": {"a": {"enum": ["a"] * 60}}}
    asked = Chat(
        messages=ASK,
        tools=[tool("f", parameters=wide), tool("g", parameters=wide)],
        must_call=True,
        schema_budget=SchemaBudget(SchemaLimits(nodes=100)),
    )

    with pytest.raises(InvalidRequest, match="`schema_nodes_limit`") as refused:
        protocol("{{ tools }}").render(asked)

    assert refused.value.param == "tools[1].function.parameters"


async def test_functions_of_a_chat_share_the_limits_with_its_strict_ones():
    wide = {"type": "object", "properties": {"a": {"enum": ["a"] * 60}}, "required": ["a"]}
    strict = tool("f", strict=True, parameters={**wide, "additionalProperties": False})
    body = {"model": "m", "messages": ASK, "tools": [strict, tool("g", parameters=wide)]}
    narrow, roomy = [
        chat_from(body, choices_limit=1, structure=await structure_from(body, limits))
        for limits in (SchemaLimits(nodes=100), SchemaLimits(nodes=200))
    ]

    with pytest.raises(InvalidRequest, match="more than 100 values") as refused:
        protocol("{{ tools }}").render(replace(narrow, must_call=True))
    for _ in range(2):  # each rendering has what the strict ones left
        protocol("{{ tools }}").render(replace(roomy, must_call=True))

    assert refused.value.param == "tools[1].function.parameters"
