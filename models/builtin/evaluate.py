"""Asks the finished GGUF the held-out questions: `python -m models.builtin.evaluate`."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_cpp import Llama

from models.builtin.chat import Chat
from models.builtin.corpus import HELD_OUT, HELD_OUT_SUMS
from models.builtin.facts import Knowledge, read_knowledge
from models.builtin.skills import UNKNOWN_ANSWER
from models.builtin.tools import function

TOOLS = {
    "get_weather": function("get_weather", "Get the weather for a city", {"city": "The city"}),
    "get_time": function("get_time", "Get the time", {"city": "City or time zone"}),
    "calculator": function("calculator", "Calculate an expression", {"expression": ""}),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A held-out question; a right answer holds all keys, or makes the one tool call.

    `kind` is the id of a fact, or `sum`, `copy`, `tool`, `unknown`.
    """

    kind: str
    question: str
    keys: Sequence[str]
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, str] | None = None

    def is_right(self, answer: str) -> bool:
        if self.arguments is not None:
            return parse_tool_call(answer) == (self.tools[0]["function"]["name"], self.arguments)
        if self.kind == "copy":
            return answer.strip() == self.keys[0]
        if self.kind == "sum":
            return answer.strip().endswith(self.keys[0])
        return all(key.lower() in answer.lower() for key in self.keys)


class Asker:
    """The model file behind its chat template, answering greedily."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._llama = Llama(str(path), n_ctx=2048, n_threads=threads, verbose=False)
        self._chat = Chat()

    def answer(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> str:
        prompt = self.prompt_of(messages, tools)
        completion = self._llama.create_completion(prompt, max_tokens=120, temperature=0.0)
        return str(completion["choices"][0]["text"])

    def prompt_of(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()
    ) -> list[int]:
        """The tokens of a chat, up to the begin of the answer."""
        return self.tokens_of(self._chat.prompt(messages, tools))

    def tokens_of(self, text: str) -> list[int]:
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def text_of(self, tokens: list[int]) -> str:
        return self._llama.detokenize(tokens, special=True).decode()

    def close(self) -> None:
        self._llama.close()


def read_cases(knowledge: Knowledge, path: Path = HELD_OUT) -> list[Case]:
    """The held-out questions, each with the key words of the fact it asks for."""
    keys = {fact.id: fact.keys for fact in knowledge.facts} | {"unknown": (UNKNOWN_ANSWER[:48],)}
    return [
        Case(
            kind=row["kind"],
            question=row["question"],
            keys=row.get("keys") or keys.get(row["kind"], ()),
            tools=[TOOLS[name] for name in row.get("tools", ())],
            arguments=row.get("arguments"),
        )
        for row in map(json.loads, path.read_text("utf-8").splitlines())
    ]


def parse_tool_call(answer: str) -> tuple[str, Any] | None:
    """The name and the arguments of the one tool call that the answer consists of, or None."""
    body = answer.strip().removeprefix("<tool_call>").removesuffix("</tool_call>")
    try:
        call = json.loads(body)
        return call["name"], call["arguments"]
    except (ValueError, KeyError, TypeError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("llm_backend/builtin/builtin.gguf"))
    parser.add_argument("--cases", type=Path, nargs="+", default=[HELD_OUT, HELD_OUT_SUMS])
    options = parser.parse_args()
    asker = Asker(options.model)
    knowledge = read_knowledge()
    for path in options.cases:
        print(f"{path.name}:")
        _print_figures(asker, read_cases(knowledge, path))
    asker.close()


def _print_figures(asker: Asker, cases: Sequence[Case]) -> None:
    """Prints each wrong answer, and how many were right of each group of cases."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for case in cases:
        answer = asker.answer([{"role": "user", "content": case.question}], case.tools)
        group = case.kind if case.kind in ("sum", "copy", "tool", "unknown") else "fact"
        total[group] += 1
        right[group] += case.is_right(answer)
        if not case.is_right(answer):
            print(f"{case.kind}: {case.question}\n    {answer}")
    for group, count in total.items():
        print(f"{group}: {right[group]} of {count}")
    print(f"all: {right.total()} of {total.total()} = {right.total() / total.total():.1%}")


if __name__ == "__main__":
    main()
