import time

import pytest

from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.answer_schema import AnswerSchema, checked
from llm_backend.errors import Internal


def schema(value: object) -> AnswerSchema:
    return AnswerSchema(value, ())


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
        ({"type": "string", "pattern": "^(a+)+$"}, '"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"'),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]},
         "[null, 1]"),
        ({"$id": "http://a/b", "$ref": "#/$defs/c", "$defs": {"c": {"$id": "http://a/c",
            "$ref": "#/$defs/d", "$defs": {"d": {"type": "null"}}}}}, "null"),
        ({"$defs": {"a": {"$anchor": "here", "type": "null"}}, "$ref": "#here"}, "null"),
        ({"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
         "[[], [[]]]"),
    ],
)  # fmt: skip
def test_an_answer_by_the_schema_passes(value, text):
    assert not schema(value).is_broken_by(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"type": "integer"}, "1.5"),
        ({"type": "object", "required": ["a"]}, "{}"),
        ({"type": "array"}, "[1, 2"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {"enum": [1]}}}, '{"a": 2}'),
        (False, "1"),
    ],
)
def test_an_answer_that_breaks_the_schema_is_found(value, text):
    assert schema(value).is_broken_by(text)


def test_a_schema_that_multiplies_is_not_followed_for_ever():
    double = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(60)
    }
    explosive = schema({"$defs": double | {"d60": {"type": "null"}}, "$ref": "#/$defs/d0"})
    begun = time.process_time()

    assert not explosive.is_broken_by("null")
    assert time.process_time() - begun < 2


def test_a_schema_that_refers_to_itself_is_not_followed_for_ever():
    assert not schema({"$ref": "#"}).is_broken_by("1")


async def test_choices_are_checked_each_at_their_end():
    numbers = schema({"type": "integer"})
    said = [*whole("1"), *whole("2", choice=1)]

    assert [delta async for delta in checked(deltas(*said), numbers)] == said


async def test_a_broken_choice_ends_in_an_error():
    numbers = schema({"type": "integer"})
    shown = checked(deltas(*whole('"one"')), numbers)

    assert (await anext(shown)).content == '"one"'
    with pytest.raises(Internal) as caught:
        await anext(shown)
    assert caught.value.code == "answer_breaks_schema"


async def test_a_choice_that_was_cut_is_not_checked():
    said = whole('{"a": ', reason="length")
    objects = schema({"type": "object"})

    assert [delta async for delta in checked(deltas(*said), objects)] == said
