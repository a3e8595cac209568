"""Answers that follow a schema or a grammar, through OpenAI's own client."""

import asyncio
import json
from typing import Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

MODEL = "gpt-3.5-turbo"
ASK = [{"role": "user", "content": "Who are you?"}]


class Part(BaseModel):
    kind: Literal["text", "number"]
    score: int = Field(ge=0, le=10)


class Summary(BaseModel):
    title: str = Field(max_length=20)
    parts: list[Part] = Field(min_length=1, max_length=3)
    note: str | None = Field(None, max_length=10)


def schema_format(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


SMALL = schema_format(
    {
        "type": "object",
        "properties": {"word": {"type": "string", "maxLength": 12}, "yes": {"type": "boolean"}},
        "required": ["word", "yes"],
        "additionalProperties": False,
    }
)


def refusal(client: openai.OpenAI, **fields: object) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=ASK, **fields)
    return caught.value


def test_an_answer_is_parsed_into_a_model_of_pydantic(client):
    completion = client.chat.completions.parse(
        model=MODEL, messages=ASK, response_format=Summary, max_tokens=400
    )

    assert isinstance(completion.choices[0].message.parsed, Summary)
    assert completion.choices[0].finish_reason == "stop"


def test_every_choice_follows_the_schema(client):
    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=SMALL, n=3, temperature=2, max_tokens=200
    )

    answers = [json.loads(choice.message.content) for choice in completion.choices]
    assert [set(answer) for answer in answers] == [{"word", "yes"}] * 3


def test_a_json_object_is_an_object_or_cut(client):
    choice = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format={"type": "json_object"}, max_tokens=100
    ).choices[0]

    assert choice.message.content.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


def test_a_streamed_answer_is_the_whole_one(exact_client):
    asked = {"model": "builtin", "messages": ASK, "response_format": SMALL, "temperature": 0}
    whole = exact_client.chat.completions.create(**asked).choices[0]
    chunks = list(exact_client.chat.completions.create(**asked, stream=True))

    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert streamed == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason == "stop"


def test_an_answer_cut_by_its_length_has_that_finish_reason(client):
    choice = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=SMALL, max_tokens=2
    ).choices[0]

    assert choice.finish_reason == "length"


def test_logprobs_come_with_a_schema(client):
    choice = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=SMALL, logprobs=True, top_logprobs=2
    ).choices[0]

    assert "".join(entry.token for entry in choice.logprobs.content) == choice.message.content


@pytest.mark.parametrize(
    ("grammar", "answers"),
    [
        ('start: "yes" | "no"', {"yes", "no"}),
        ('root ::= "red" | "green"', {"red", "green"}),
    ],
)
def test_a_chat_follows_a_grammar(client, grammar, answers):
    choice = client.chat.completions.create(
        model=MODEL, messages=ASK, extra_body={"grammar": grammar}
    ).choices[0]

    assert choice.message.content in answers
    assert choice.finish_reason == "stop"


def test_a_completion_follows_a_grammar(client):
    choices = client.completions.create(
        model=MODEL, prompt="A number:", n=2, extra_body={"grammar": "start: /[0-9]{3}/"}
    ).choices

    assert all(len(choice.text) == 3 and choice.text.isdigit() for choice in choices)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"response_format": schema_format({"properties": {"a": {"format": "regex"}}})},
            "response_format.json_schema.schema.properties.a.format",
        ),
        (
            {"response_format": schema_format({"type": "integer", "minimum": 3, "maximum": 2})},
            "response_format.json_schema.schema.maximum",
        ),
        (
            {"response_format": schema_format({"$ref": "#"})},
            "response_format.json_schema.schema.$ref",
        ),
        (
            {"response_format": schema_format({"const": 10**29 + 1})},
            "response_format.json_schema.schema.const",
        ),
        (
            {"response_format": schema_format({"minimum": 2**53 + 1, "maximum": 2**53 + 1})},
            "response_format.json_schema.schema.minimum",
        ),
        (
            {
                "response_format": schema_format(
                    {
                        "items": {"patternProperties": {"a": {}, "b": {}}},
                        "type": "array",
                        "minItems": 1,
                    }
                )
            },
            "response_format.json_schema.schema.items.patternProperties",
        ),
        ({"extra_body": {"grammar": "start: ("}}, "grammar"),
        ({"extra_body": {"grammar": "x" * 200_000}}, "grammar"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_unsupported_schema_is_refused_by_its_place(client, fields, param, stream):
    error = refusal(client, stream=stream, **fields)

    assert error.body["param"] == param
    assert "\n" not in error.body["message"]


PAIR = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 19},
    "uniqueItems": True,
    "minItems": 2,
    "maxItems": 2,
}


def test_answers_beyond_the_grammar_are_validated_before_they_are_sent(client):
    asked = {
        "model": MODEL,
        "messages": ASK,
        "response_format": schema_format(PAIR),
        "temperature": 2,
        "n": 8,
        "max_tokens": 40,
    }
    whole = client.chat.completions.create(**asked, seed=5)
    texts = [choice.message.content for choice in whole.choices]
    streamed = [""] * 8
    for chunk in client.chat.completions.create(**asked, seed=6, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""

    for text in [*texts, *streamed]:
        one, other = json.loads(text)
        assert one != other


@pytest.mark.parametrize(
    "items", [{"enum": [1, 2, 3]}, {"enum": ["red", "green", "blue", "black", "white"]}]
)
def test_unique_items_of_few_values_are_generated_without_repeats(client, items):
    count = len(items["enum"])
    schema = {"type": "array", "items": items, "uniqueItems": True, "minItems": count}

    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=schema_format(schema), n=8, temperature=2, seed=5
    )

    for choice in completion.choices:
        assert sorted(json.loads(choice.message.content)) == sorted(items["enum"])


def test_large_integers_are_kept_as_they_are(client):
    parameters = {"type": "object", "properties": {"a": {"maximum": 10**30 + 1}}}
    tool = {"type": "function", "name": "f", "parameters": parameters, "strict": False}

    made = client.responses.create(model=MODEL, input="Hello!", tools=[tool], max_output_tokens=16)
    kept = client.responses.retrieve(made.id)

    assert [made.tools[0].parameters, kept.tools[0].parameters] == [parameters] * 2


def test_a_schema_without_a_schema_is_refused(client):
    error = refusal(
        client, response_format={"type": "json_schema", "json_schema": {"name": "nothing"}}
    )

    assert error.body["param"] == "response_format.json_schema.schema"


async def test_unconstrained_requests_are_not_changed_by_constrained_ones(async_client):
    free = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 24}
    alone = await async_client.chat.completions.create(**free)
    together = await asyncio.gather(
        *(async_client.chat.completions.create(**free) for _ in range(2)),
        *(async_client.chat.completions.create(**free | {"response_format": SMALL,
            "max_tokens": 200}) for _ in range(3)),
    )  # fmt: skip

    texts = [completion.choices[0].message.content for completion in together]
    assert texts[:2] == [alone.choices[0].message.content] * 2
    assert all(set(json.loads(text)) == {"word", "yes"} for text in texts[2:])


def test_a_stored_chat_keeps_what_followed_the_schema(client, server):
    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format=SMALL, store=True
    )
    stored = httpx.get(f"{server.base_url}/chat/completions/{completion.id}").json()

    assert stored["choices"][0]["message"]["content"] == completion.choices[0].message.content
