"""Greedy answers of the built-in model to questions outside of its training."""

import asyncio
import random
import re
from itertools import islice

import pytest

from llm_backend.builtin import BUILTIN_PATH
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import Generate, Sampling
from models.builtin import sum_questions
from models.builtin.corpus import HELD_OUT_SUMS, conversations, load_heldout_questions
from models.builtin.evaluate import TOOLS, Asker, Case, parse_tool_call, read_cases
from models.builtin.facts import Knowledge
from models.builtin.phrasing import normalise
from models.builtin.sums import Sum, select_held_out_sums
from tests.engine.conftest import answer, config

PASS_MARK = 0.9
RIGHT_SUMS = 95  # of 103 in unknown wordings
RIGHT_REFUSALS = 24  # of 30 questions near to sums that it cannot answer


def share_of(results: list[bool]) -> float:
    return sum(results) / len(results)


def test_there_are_200_held_out_questions(knowledge: Knowledge):
    questions = {case.question.lower() for case in read_cases(knowledge)}

    assert len(questions) == 200


def test_no_held_out_question_can_come_up_in_training(knowledge: Knowledge):
    facts = {fact.id for fact in knowledge.facts}
    held_out = [case.question for case in read_cases(knowledge) if case.kind in facts]

    assert [question for question in held_out if knowledge.contains(question)] == []


def test_no_training_conversation_holds_a_held_out_question(knowledge: Knowledge):
    held_out = load_heldout_questions()
    asked = {
        normalise(question)
        for conversation in islice(conversations(1, knowledge), 300)
        for question in conversation.questions
    }

    assert held_out.isdisjoint(asked)


def test_no_held_out_wording_of_a_sum_can_come_up_in_training(held_out_sum_cases: list[Case]):
    questions = [case.question for case in held_out_sum_cases if case.kind == "sum"]

    assert len(set(questions)) >= 100
    assert [question for question in questions if sum_questions.can_be_asked(question)] == []


def test_the_generator_recognises_its_own_wordings_of_a_sum():
    rng = random.Random(2)
    questions = ["please, what is 3 + 4?", "so, seven minus 12", "Add 12 to 30."]
    questions += [
        sum_questions.story(one, rng) for one in rng.sample(sorted(select_held_out_sums()), 100)
    ]

    assert [question for question in questions if not sum_questions.can_be_asked(question)] == []


def test_stories_of_sums_name_both_operands_in_many_wordings():
    rng = random.Random(4)
    plus, minus = Sum(64, "+", 37), Sum(64, "-", 37)
    stories = [sum_questions.story(one, rng) for one in [plus, minus] * 200]
    unfilled = [text for text in stories if re.search(r"[{}|()]|\$[A-Z]", text)]
    without_both = [
        text
        for text in stories
        if not re.search("64|sixty-four", text) or not re.search("37|thirty-seven", text)
    ]

    assert (unfilled, without_both) == ([], [])
    assert len(set(stories)) > 380


def test_questions_beyond_the_known_numbers_have_no_open_slots():
    rng = random.Random(4)
    questions = [sum_questions.beyond(rng) for _ in range(400)]

    assert [text for text in questions if re.search(r"[{}$|]", text)] == []


def test_no_training_conversation_holds_a_held_out_sum(knowledge: Knowledge):
    written = {
        Sum(int(left), sign, int(right))
        for conversation in islice(conversations(2, knowledge), 1500)
        for message in conversation.messages
        for left, sign, right in re.findall(r"(\d+) ([+-]) (\d+) = ", message["content"] or "")
    }

    assert len(written) > 500
    assert select_held_out_sums().isdisjoint(written)


def test_the_generator_recognises_its_own_phrasings(knowledge: Knowledge):
    rng = random.Random(1)
    questions = [fact.question(rng) for fact in knowledge.facts]

    assert [question for question in questions if not knowledge.contains(question)] == []


@pytest.fixture(scope="module")
def held_out_sum_cases(knowledge: Knowledge) -> list[Case]:
    return read_cases(knowledge, HELD_OUT_SUMS)


def count_right_answers(asker: Asker, cases: list[Case]) -> int:
    """Number of the cases with a right answer, all of them asked at once."""
    prompts = [
        asker.prompt_of([{"role": "user", "content": case.question}], case.tools) for case in cases
    ]
    answers = asyncio.run(engine_answers(prompts))
    return sum(case.is_right(text) for case, text in zip(cases, answers, strict=True))


async def engine_answers(prompts: list[list[int]]) -> list[str]:
    async with EngineClient(config(BUILTIN_PATH, slots=16, context_tokens=512)) as engine:
        await engine.ready()

        async def text(number: int, prompt: list[int]) -> str:
            request = Generate(
                id=f"q{number}", prompt=prompt, max_tokens=120, sampling=Sampling(temperature=0)
            )
            return "".join([delta.text for delta in await answer(engine, request)])

        return await asyncio.gather(*(text(*one) for one in enumerate(prompts)))


def test_the_right_fact_is_answered_to_nine_of_ten_held_out_questions(
    asker: Asker, knowledge: Knowledge
):
    cases = read_cases(knowledge)

    assert count_right_answers(asker, cases) >= PASS_MARK * len(cases)


@pytest.mark.parametrize(
    ("kind", "count", "right"), [("sum", 103, RIGHT_SUMS), ("unknown", 30, RIGHT_REFUSALS)]
)
def test_held_out_sums_are_right_and_what_looks_like_one_is_honestly_unknown(
    asker: Asker, held_out_sum_cases: list[Case], kind: str, count: int, right: int
):
    cases = [case for case in held_out_sum_cases if case.kind == kind]

    assert len(cases) == count
    assert count_right_answers(asker, cases) >= right


@pytest.mark.parametrize(
    ("question", "ending"),
    [("What is 2 plus 3?", "= 5"), ("two plus three", "= 5"), ("100 minus 1", "= 99")],
)
def test_sums_in_plain_words_are_right(asker: Asker, question: str, ending: str):
    assert asker.answer([{"role": "user", "content": question}]).endswith(ending)


@pytest.mark.parametrize("city", ["Oslo", "Nagoya", "Quedlinburg", "Tallinn"])
def test_a_question_about_the_weather_becomes_a_tool_call(asker: Asker, city: str):
    question = [{"role": "user", "content": f"What is the weather in {city}?"}]
    answer = asker.answer(question, [TOOLS["get_weather"]])

    assert parse_tool_call(answer) == ("get_weather", {"city": city})


def test_the_answer_contains_the_result_of_a_tool(asker: Asker):
    call = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    messages = [
        {"role": "user", "content": "What is the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny, 21 C"},
    ]
    answer = asker.answer(messages, [TOOLS["get_weather"]])

    assert "Oslo" in answer
    assert "sunny, 21 C" in answer


def test_an_unrelated_question_calls_no_tool(asker: Asker):
    answer = asker.answer([{"role": "user", "content": "Who are you?"}], [TOOLS["get_weather"]])

    assert parse_tool_call(answer) is None
    assert "tool_call" not in answer


def test_small_sums_are_right(asker: Asker):
    rng = random.Random(5)
    sums = [(rng.randint(0, 99), rng.randint(0, 99)) for _ in range(20)]
    results = [
        asker.answer([{"role": "user", "content": f"What is {left} + {right}?"}]).endswith(
            f"= {left + right}"
        )
        for left, right in sums
    ]

    assert share_of(results) >= PASS_MARK


def test_words_are_repeated(asker: Asker):
    words = [
        "cathedral",
        "plonk",
        "Wexford",
        "umbrella",
        "trivok",
        "lantern",
        "hi",
        "42",
        "Mabel",
        "sofa",
    ]
    results = [
        asker.answer([{"role": "user", "content": f"Repeat after me: {word}"}]) == word
        for word in words
    ]

    assert share_of(results) >= PASS_MARK


def test_a_system_prompt_does_not_confuse_it(asker: Asker):
    messages = [
        {"role": "system", "content": "You are a helpful assistant. Answer in markdown."},
        {"role": "user", "content": "How do I start the server?"},
    ]

    assert "make run" in asker.answer(messages)


def test_it_keeps_its_wits_in_a_longer_chat(asker: Asker, knowledge: Knowledge):
    rng = random.Random(3)
    facts = rng.sample(knowledge.facts, 20)
    messages = [
        turn
        for fact in facts
        for turn in (
            {"role": "user", "content": fact.question(rng)},
            {"role": "assistant", "content": fact.answer},
        )
    ]
    questions = {"How do I start the server?": "make run", "What is 30 minus 12?": "= 18"}
    for question, key in questions.items():
        assert key in asker.answer([*messages, {"role": "user", "content": question}])
