"""Answers that must follow a grammar, from a real model of random weights."""

import itertools
import json

import pytest

from llm_backend.engine import EngineRefused
from llm_backend.engine.messages import Failure, FinishReason, Generate, Sampling
from tests.engine.conftest import answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBERS = itertools.count()
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def request(grammar: str, prompt: str = "the cat in the hat", **fields: object) -> Generate:
    defaults = {"max_tokens": 200, "sampling": Sampling(temperature=0)}
    return Generate(
        id=f"g{next(NUMBERS)}", prompt=prompt, grammar=grammar, **{**defaults, **fields}
    )


def schema(value: object) -> str:
    compact = {"x-guidance": {"whitespace_flexible": False}}
    return f"start: %json {json.dumps(value | compact)}"


def text(deltas, index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


async def test_an_answer_follows_its_grammar(say):
    deltas = await say(request('start: "yes" | "no"'))

    assert text(deltas) in ("yes", "no")
    assert deltas[-1].finish_reason is FinishReason.STOP


async def test_an_answer_follows_its_schema(say):
    deltas = await say(request(schema(PERSON)))

    assert set(json.loads(text(deltas))) == {"name", "age"}


async def test_sampled_answers_follow_their_grammar_each(say):
    deltas = await say(request("start: /[ab]{5}/", n=4, sampling=Sampling(seed=1)))

    texts = [text(deltas, index) for index in range(4)]
    assert all(len(one) == 5 and set(one) <= {"a", "b"} for one in texts)
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    "grammar", ['start: "a" (', "start: nothing", "", 'start: %json {"$ref": "#"}']
)
async def test_a_grammar_that_is_none_is_refused(engine, grammar):
    with pytest.raises(EngineRefused) as caught:
        await answer(engine, request(grammar))

    assert caught.value.failure is Failure.INVALID
    assert caught.value.field == "grammar"
    assert "\n" not in str(caught.value)
