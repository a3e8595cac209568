import time

import pytest

from llm_backend.backends.base import Chat, ChatDelta, GenerationLimits, ToolCall, Usage
from llm_backend.backends.schemas import AnswerSchema
from llm_backend.controllers.generation.checked_answer import CheckedAnswer, raise_on_violation
from llm_backend.controllers.generation.structured_output import StructuredOutput
from llm_backend.engine.messages import Sampling
from llm_backend.errors import Internal, RateLimited, UnusableAnswer


def schema(value: object) -> AnswerSchema:
    return AnswerSchema(value, ())


def structure(value: object, *, needs_no_validation: bool = True) -> StructuredOutput:
    return StructuredOutput(schema=schema(value), needs_no_validation=needs_no_validation)


async def deltas(*said: ChatDelta):
    for delta in said:
        yield delta


def whole(content: str, reason: str = "stop", choice: int = 0) -> list[ChatDelta]:
    return [
        ChatDelta(choice=choice, content=content),
        ChatDelta(choice=choice, finish_reason=reason),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"type": "integer", "multipleOf": 7}, "7" + "0" * 5000),
        ({"type": "number", "exclusiveMaximum": 0.3}, "0.29999999999999999999"),
        ({"type": "number", "multipleOf": 0.01}, "1234567.89"),
        ({"type": "number"}, "1e999999"),
        ({"enum": [9007199254740993]}, "9007199254740993"),
        ({"const": 10**29 + 1}, "100000000000000000000000000001"),
        ({"const": {"a": [2**64]}}, '{"a": [18446744073709551616]}'),
        ({"pattern": "^\\0$"}, '"\\u0000"'),
        ({"type": "string", "pattern": "^(a+)+$"}, '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]},
         "[null, 1]"),
        ({"$id": "http://a/b", "$ref": "#/$defs/c", "$defs": {"c": {"$id": "http://a/c",
            "$ref": "#/$defs/d", "$defs": {"d": {"type": "null"}}}}}, "null"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$dynamicRef": 1}, "null"),
        ({"$defs": {"a": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}, "null"),
        ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
         "[[], [[]]]"),
    ],
)  # fmt: skip
def test_an_answer_by_the_schema_passes(value, text):
    assert not schema(value).rejects(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"type": "integer"}, "1.5"),
        ({"type": "object", "required": ["a"]}, "{}"),
        ({"type": "array"}, "[1, 2"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"enum": [1]}}}, '{"a": 2}'),
        (False, "1"),
        ({"enum": [9007199254740993]}, "9007199254740992"),
        ({"const": 10**29 + 1}, "100000000000000000000000000000"),
        ({"maximum": 2**63}, "9223372036854775809"),
        ({"const": {"a": [2**64]}}, '{"a": [18446744073709551617]}'),
        ({"pattern": "^\\0$"}, '"0"'),
    ],
)
def test_an_answer_that_breaks_the_schema_is_found(value, text):
    assert schema(value).rejects(text)


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_a_schema_that_multiplies_is_not_followed_for_ever(keyword):
    levels = 30  # each doubles the time of a validation: some 20 seconds in all
    double = {
        f"d{level}": {"allOf": [{keyword: f"#/$defs/d{level + 1}"}] * 2} for level in range(levels)
    }
    leaf = {f"d{levels}": {"type": "null"}}
    explosive = schema({"$defs": double | leaf, keyword: "#/$defs/d0"})
    begun = time.process_time()

    assert not explosive.rejects("null")
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_answer_is_validated_by_the_schema_that_an_anchor_names(keyword):
    anchor = {"$anchor": "here", "$dynamicAnchor": "here", "type": "null"}
    null = schema({"$defs": {"a": anchor}, keyword: "#here"})

    assert not null.rejects("null", needs_no_validation=False)
    assert null.rejects("1")


def test_a_schema_that_refers_to_itself_is_not_followed_for_ever():
    assert not schema({"$ref": "#"}).rejects("1")


@pytest.mark.parametrize("number", ["1E1000000000000000000", "-0.1e-9000000000000000000"])
def test_answer_with_an_exponent_beyond_every_decimal_is_believed_if_constrained(number):
    numbers = schema({"type": "array", "items": {"type": "number"}})

    assert not numbers.rejects(f"[{number}]")
    assert numbers.rejects(f"[{number}]", needs_no_validation=False)


async def test_choices_are_checked_each_at_their_end():
    numbers = structure({"type": "integer"})
    said = [*whole("1"), *whole("2", choice=1)]

    assert [delta async for delta in raise_on_violation(deltas(*said), numbers)] == said


async def test_a_broken_choice_ends_in_an_error():
    numbers = structure({"type": "integer"})
    shown = raise_on_violation(deltas(*whole('"one"')), numbers)

    assert (await anext(shown)).content == '"one"'
    with pytest.raises(Internal) as caught:
        await anext(shown)
    assert caught.value.code == "answer_breaks_schema"


async def test_a_choice_that_was_cut_is_not_checked():
    said = whole('{"a": ', reason="length")
    objects = structure({"type": "object"})

    assert [delta async for delta in raise_on_violation(deltas(*said), objects)] == said


class Answered:
    """An answer of a model that says this."""

    def __init__(self, *said: ChatDelta) -> None:
        self.said = said
        self.usage = Usage(completion_tokens=len(said))
        self.exits = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        self.exits += 1

    async def chat_deltas(self, _: Chat):
        for delta in self.said:
            yield delta


class Model:
    """Gives these answers, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: Answered) -> None:
        self.answers = list(answers)
        self.asked: list[Chat] = []

    async def chat(self, chat: Chat) -> Answered:
        self.asked.append(chat)
        return self.answers.pop(0)


TWICE = Chat(
    messages=[], limits=GenerationLimits(choices=2), sampling=Sampling(seed=7, temperature=0)
)
NUMBERS = structure({"type": "integer"}, needs_no_validation=False)


async def said_by(answer: CheckedAnswer) -> list[ChatDelta]:
    async with answer:
        return [delta async for delta in answer.chat_deltas(TWICE)]


async def test_an_answer_that_violates_the_schema_is_withheld_and_retried():
    first = Answered(*whole('"one"'), *whole("2", choice=1))
    model = Model(Answered(*whole("1.5")), Answered(*whole("1")))
    answer = CheckedAnswer(first, NUMBERS, model.chat, attempts=3)

    said = await said_by(answer)

    assert said == [*whole("2", choice=1), *whole("1")]
    assert [chat.limits.choices for chat in model.asked] == [1, 1]
    assert [chat.sampling.seed for chat in model.asked] == [8, 9]
    assert all(chat.sampling.temperature > 0 for chat in model.asked)
    assert answer.usage.completion_tokens == 4 + 2 + 2
    assert first.exits == 1


async def test_an_answer_that_no_try_makes_right_is_an_error():
    model = Model(Answered(*whole('"two"')))
    answer = CheckedAnswer(Answered(*whole('"one"')), NUMBERS, model.chat, attempts=2)

    with pytest.raises(UnusableAnswer) as caught:
        await anext(answer.chat_deltas(TWICE))  # nothing was shown

    assert caught.value.code == "answer_breaks_schema"


async def test_a_retry_that_the_model_refuses_releases_the_first_answer_once():
    async def refuse(_: Chat) -> Answered:
        raise RateLimited("The queue is full.")

    first = Answered(*whole('"one"'))
    answer = CheckedAnswer(first, NUMBERS, refuse, attempts=2)

    with pytest.raises(RateLimited):
        await said_by(answer)

    assert first.exits == 1
    assert answer.usage == first.usage


async def test_an_answer_that_is_right_is_shown_when_it_is_whole():
    answer = CheckedAnswer(Answered(*whole("12")), NUMBERS, Model().chat, attempts=1)

    assert await said_by(answer) == whole("12")


async def test_an_unchecked_answer_is_rejected_if_the_grammar_is_inexact():
    double = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    explosive = {"$defs": double | {"d60": {"type": "null"}}, "$ref": "#/$defs/d0"}
    loose = structure(explosive, needs_no_validation=False)
    answer = CheckedAnswer(Answered(*whole("null")), loose, Model().chat, attempts=1)

    with pytest.raises(UnusableAnswer):
        await said_by(answer)


def call(arguments: str, *, name: str | None = "f", index: int = 0) -> ChatDelta:
    made = ToolCall(index=index, id="call_1", name=name, arguments=arguments)
    return ChatDelta(choice=0, tool_calls=[made])


@pytest.mark.parametrize(
    ("said", "reason", "is_right"),
    [
        ([call('{"a":'), call(" 1}", name=None)], "tool_calls", True),
        ([call('{"a":'), call(' "1"}', name=None)], "tool_calls", False),
        ([call('{"a": "1"}', name="another")], "tool_calls", True),
        ([call('{"a": 1}'), call('{"a": null}', index=1)], "tool_calls", False),
        ([call('{"a": ')], "length", True),
        ([call('{"a": null}'), call('{"a"', index=1)], "length", False),
    ],
)
async def test_calls_of_strict_functions_are_checked(said, reason, is_right):
    strict = {"f": schema({"properties": {"a": {"type": "integer"}}})}
    said = [*said, ChatDelta(choice=0, finish_reason=reason)]

    shown = raise_on_violation(deltas(*said), StructuredOutput(calls=strict))

    if is_right:
        assert [delta async for delta in shown] == said
    else:
        with pytest.raises(Internal):
            _ = [delta async for delta in shown]
