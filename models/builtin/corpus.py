"""The training conversations: an endless, seeded stream of messages and tools."""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.builtin import noise, skills
from models.builtin.facts import Knowledge, read_knowledge
from models.builtin.phrasing import normalise
from models.builtin.systems import system_prompt
from models.builtin.tools import Message, tool_dialogue

HELD_OUT = Path(__file__).parent / "heldout.jsonl"
HELD_OUT_SUMS = Path(__file__).parent / "heldout_sums.jsonl"
# How often a turn is of which kind, in percent.
SHARES = {"fact": 52, "unknown": 8, "echo": 16, "sum": 12, "sums": 10, "spell": 2}
# Most conversations are drills, of one turn each: short ones, so that a step holds many questions.
DRILLS = 0.89
DRILL_SHARES = {"fact": 46, "unknown": 5, "echo": 5, "sums": 2, "sum": 32, "beyond": 10}
SETTLED_BY_OPENING = ("fact", "unknown", "beyond")
SKILLS = {
    "echo": skills.echo,
    "sum": skills.arithmetic,
    "sums": skills.many_sums,
    "beyond": skills.large_numbers,
    "spell": skills.spelling,
}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Input of a chat template.

    `is_settled_by_opening` marks a last answer whose first words settle the rest.
    """

    messages: list[Message]
    tools: list[Any] = field(default_factory=list)
    is_settled_by_opening: bool = False

    @property
    def questions(self) -> list[str]:
        return [message["content"] for message in self.messages if message["role"] == "user"]


def conversations(seed: int, knowledge: Knowledge | None = None) -> Iterator[Conversation]:
    """Conversations without end; the same seed gives the same ones."""
    rng = random.Random(seed)
    known = knowledge or read_knowledge()
    held_out = load_heldout_questions()
    while True:
        make = _drill if rng.random() < DRILLS else _conversation
        conversation = make(known, rng)
        if held_out.isdisjoint(map(normalise, conversation.questions)):
            yield conversation


def load_heldout_questions() -> set[str]:
    """The questions of the evaluation, normalised; no conversation may hold one."""
    rows = [
        json.loads(row)
        for path in (HELD_OUT, HELD_OUT_SUMS)
        for row in path.read_text("utf-8").splitlines()
    ]
    return {normalise(row["question"]) for row in rows}


def _drill(knowledge: Knowledge, rng: random.Random) -> Conversation:
    kind = _any_kind(DRILL_SHARES, rng)
    return Conversation(
        messages=_turn(kind, knowledge, rng),
        is_settled_by_opening=kind in SETTLED_BY_OPENING,
    )


def _conversation(knowledge: Knowledge, rng: random.Random) -> Conversation:
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": system_prompt(rng)})
    if rng.random() < 0.45:
        dialogue, tools = tool_dialogue(rng, lambda: _turn(_any_kind(SHARES, rng), knowledge, rng))
        return Conversation(messages=messages + dialogue, tools=tools)
    longest = rng.choices((1, 3, 8, 24), (60, 25, 12, 3))[0]
    kinds = [_any_kind(SHARES, rng) for _ in range(rng.randint(1, longest))]
    for kind in kinds:
        messages += _turn(kind, knowledge, rng)
    return Conversation(messages=messages, is_settled_by_opening=kinds[-1] in SETTLED_BY_OPENING)


def _any_kind(shares: Mapping[str, int], rng: random.Random) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def _turn(kind: str, knowledge: Knowledge, rng: random.Random) -> list[Message]:
    question, answer = _question_and_answer(kind, knowledge, rng)
    question = _text_to_repeat(question, rng) if kind == "echo" else noise.vary_style(question, rng)
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _question_and_answer(kind: str, knowledge: Knowledge, rng: random.Random) -> tuple[str, str]:
    if kind in SKILLS:
        question, answer = SKILLS[kind](rng)
        if kind in ("sum", "beyond"):
            question = noise.insert_words(question, rng)
        return noise.add_prefix(question, knowledge.prefixes, rng), answer
    if kind == "unknown":
        question, answer = skills.unknown(rng)
        return _like_people(question, knowledge, rng), answer
    fact = rng.choice(knowledge.facts)
    question = fact.question(rng)
    if fact.is_plain:
        return noise.add_typing_errors(question, rng), fact.answer
    return _like_people(question, knowledge, rng), fact.answer


def _like_people(question: str, knowledge: Knowledge, rng: random.Random) -> str:
    question = noise.add_typing_errors(question, rng)
    return noise.polite(question, knowledge.prefixes, knowledge.suffixes, rng)


def _text_to_repeat(question: str, rng: random.Random) -> str:
    """A text to repeat keeps its capitals; an end mark behind it is not always part of it."""
    mark = rng.choice(".!") if rng.random() < 0.1 else ""
    return (question[0].upper() + question[1:] if rng.random() < 0.6 else question) + mark
