"""Dialogues with tools: a matching question is answered by a call, its result by a sentence."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from models.builtin import noise, words
from models.builtin.facts import read_yaml
from models.builtin.results import random_result, spoken

Message = dict[str, Any]
_FORMS = read_yaml("tools")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A tool, a question that fits it, and for each call its arguments and how its result opens."""

    tool: dict[str, Any]
    question: str
    arguments: tuple[Mapping[str, str], ...]
    result_openings: tuple[str, ...]


def tool_dialogue(
    rng: random.Random, unrelated: Callable[[], list[Message]]
) -> tuple[list[Message], list[Any]]:
    """The messages and the tools of one dialogue; `unrelated` makes turns that need no tool."""
    case = rng.choices((_weather, _time, _calculator, _named_tool_case), (5, 3, 2, 3))[0](rng)
    others = [
        make(rng).tool
        for make in (_weather, _time, _calculator, _named_tool_case, _named_tool_case)
    ]
    others = [tool for tool in others if _name(tool) != _name(case.tool)]
    tools = [case.tool, *rng.sample(others, rng.choices((0, 1, 2), (6, 3, 1))[0])]
    rng.shuffle(tools)
    messages: list[Message] = unrelated() if rng.random() < 0.15 else []
    if rng.random() < 0.2:
        return [*messages, *unrelated()], tools
    messages += [{"role": "user", "content": case.question}, _call(case)]
    if rng.random() < 0.5:
        messages += _answer_case(case, rng)
        if rng.random() < 0.3:
            messages += unrelated()
    return messages, tools


def function(
    name: str, description: str, parameters: Mapping[str, str], required: int = 1
) -> dict[str, Any]:
    """A tool as a request offers it: parameters are strings, the first `required` are needed."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {
                    key: {"type": "string", "description": text} if text else {"type": "string"}
                    for key, text in parameters.items()
                },
                "required": list(parameters)[:required],
            },
        },
    }


def _name(tool: dict[str, Any]) -> str:
    return str(tool["function"]["name"])


def _call(case: Case) -> Message:
    calls = [
        {"type": "function", "function": {"name": _name(case.tool), "arguments": dict(arguments)}}
        for arguments in case.arguments
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _answer_case(case: Case, rng: random.Random) -> list[Message]:
    results: list[Message] = []
    sentences = []
    for arguments, opening in zip(case.arguments, case.result_openings, strict=True):
        result = random_result(arguments, opening, rng)
        written = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        results.append({"role": "tool", "content": written})
        is_sentence = isinstance(result, str) and result.endswith(".")
        sentences.append(written if is_sentence else f"{opening}: {spoken(result)}")
    return [*results, {"role": "assistant", "content": "\n".join(sentences)}]


def _weather(rng: random.Random) -> Case:
    forms = _FORMS["weather"]
    name = rng.choice(forms["name"])
    key = rng.choice(forms["key"])
    parameters = {key: rng.choice(forms["parameter"])}
    if rng.random() < 0.25:
        parameters["unit"] = rng.choice(("", "celsius or fahrenheit"))
    description = rng.choice(forms["description"])
    cities = _places(rng)
    frame = rng.choice(forms["frame"])
    return Case(
        tool=function(name, description, parameters),
        question=_phrase_question(frame.format(" and ".join(cities)), rng),
        arguments=tuple({key: city} for city in cities),
        result_openings=tuple(f"The weather in {city}" for city in cities),
    )


def _time(rng: random.Random) -> Case:
    forms = _FORMS["time"]
    name = rng.choice(forms["name"])
    key = rng.choice(forms["key"])
    cities = _places(rng)
    frame = rng.choice(forms["frame"])
    description = rng.choice(forms["description"])
    return Case(
        tool=function(name, description, {key: rng.choice(("", "City or time zone"))}),
        question=_phrase_question(frame.format(" and ".join(cities)), rng),
        arguments=tuple({key: city} for city in cities),
        result_openings=tuple(f"The time in {city}" for city in cities),
    )


def _calculator(rng: random.Random) -> Case:
    forms = _FORMS["calculator"]
    left, right = rng.randint(0, 9999), rng.randint(0, 999)
    expression = f"{left} {rng.choice('+-*/')} {right}"
    frame = rng.choice(forms["frame"])
    key = rng.choice(forms["key"])
    name = rng.choice(forms["name"])
    return Case(
        tool=function(name, rng.choice(forms["description"]), {key: ""}),
        question=_phrase_question(frame.format(expression), rng),
        arguments=({key: expression},),
        result_openings=("The result",),
    )


def _named_tool_case(rng: random.Random) -> Case:
    """A tool with a made-up or rare name that the question names or describes by its words."""
    forms = _FORMS["named"]
    verb = rng.choice(forms["verb"])
    made_up = [words.random_word(rng).lower() for _ in range(2)]
    noun = rng.choice([*forms["noun"], *made_up])
    key = rng.choice([*forms["key"], noun])
    name = f"{verb}_{noun}"
    spoken = name.replace("_", " ")
    value = words.random_word(rng) if rng.random() < 0.7 else str(rng.randint(1, 9999))
    frame = rng.choice(forms["frame"])
    question = frame.format(name=name, spoken=spoken, key=key, value=value)
    description = rng.choice((spoken, spoken.capitalize(), ""))
    return Case(
        tool=function(name, description, {key: rng.choice(("", f"The {key}"))}),
        question=_phrase_question(question, rng),
        arguments=({key: value},),
        result_openings=("The result",),
    )


def _places(rng: random.Random) -> list[str]:
    """One place, or one time in ten two, each of which needs a call."""
    return [words.place(rng) for _ in range(2 if rng.random() < 0.1 else 1)]


def _phrase_question(question: str, rng: random.Random) -> str:
    question = noise.polite(question, _FORMS["before"], _FORMS["behind"], rng)
    if rng.random() < 0.6:
        question = question[0].upper() + question[1:]
    return question + rng.choice(("?", "?", "", ".", "?", ""))
