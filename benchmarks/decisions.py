"""Cost of a decision of many questions about one input, against the prefill of its tokens and
against a chat for each question: processor time of the engine's process, which other processes
disturb less than the clock.

    python -m benchmarks.decisions [--questions 100] [--input-tokens 2000] [--question-tokens 64]
                                   [--cells separate,unified]

The model has the shape of one with 135 million parameters (Q8_0), random weights and a token for
each letter: speed depends neither on the values nor on the words. The questions' tokens are
prefilled behind the input, one pass of them, and alone, each question as a prompt. Chats answer
with one token, and do or do not find the input in the cache. Of prefill behind the input and of
chats a part is measured, and multiplied.
"""

import argparse
import asyncio
import itertools
import os
import random
import string
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import TOKENS, write_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, Question, Sampling, ScoreLabels

NUMBERS = itertools.count()
LETTERS = string.ascii_lowercase
MEASURED_CHATS = 4
PASS_TOKENS = 512
CONTEXT_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Load:
    """An input and questions, with their lengths in tokens."""

    questions: int
    input_tokens: int
    question_tokens: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--input-tokens", type=int, default=2000)
    parser.add_argument("--question-tokens", type=int, default=64)
    parser.add_argument("--cells", default="separate,unified")
    options = parser.parse_args()
    load = Load(
        questions=options.questions,
        input_tokens=options.input_tokens,
        question_tokens=options.question_tokens,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        tokens = (TOKENS[0], *LETTERS, *TOKENS[len(LETTERS) + 2 :], "ab")
        write_model(path, tokens, ("a b",))
        asyncio.run(_measure(path, load, options.cells.split(",")))


async def _measure(path: Path, load: Load, cells: list[str]) -> None:
    table = Table("cells", "input", "behind it", "alone", "decision", "chats", "cached chats")
    for name in cells:
        kv_unified = name == "unified"
        config = EngineConfig(
            model_path=path,
            context_tokens=CONTEXT_TOKENS,
            kv_unified=kv_unified,
            batch_tokens=PASS_TOKENS,
            prefix_ram_limit_bytes=0,
        )
        async with EngineClient(config) as engine:
            await engine.ready()
            row = await _row(engine, load)
        table.add_row(name, *row)
    Console().print(table)
    Console().print(
        "Seconds of the processor, and by how much the decision costs more than the input and the "
        "questions; how many times it is cheaper than chats."
    )


async def _row(engine: EngineClient, load: Load) -> list[str]:
    dice = random.Random(0)
    context = _text(dice, load.input_tokens)
    questions = [_text(dice, load.question_tokens) for _ in range(load.questions)]
    prompt = await engine.tokenize(context)
    own = [await engine.tokenize(question) for question in questions]
    await _answer(engine, prompt[:64])
    input_s = await _cpu_s(engine, _answer(engine, prompt))
    some = list(itertools.chain.from_iterable(own))[:PASS_TOKENS]
    behind_s = await _cpu_s(engine, _answer(engine, prompt + some))
    behind_s *= load.questions * load.question_tokens / len(some)
    alone_s = await _cpu_s(engine, _answers(engine, own))
    decision_s = await _cpu_s(engine, _decide(engine, "z" + context, questions))
    fresh = [[500 + index, *prompt, *own[index]] for index in range(MEASURED_CHATS)]
    chats_s = await _cpu_s(engine, _one_by_one(engine, fresh))
    cached = [[500, *prompt, *own[-index]] for index in range(1, MEASURED_CHATS + 1)]
    cached_s = await _cpu_s(engine, _one_by_one(engine, cached))
    share = load.questions / MEASURED_CHATS
    return [
        f"{input_s:.1f}",
        f"{behind_s:.1f} ({decision_s / (input_s + behind_s):.2f} x)",
        f"{alone_s:.1f} ({decision_s / (input_s + alone_s):.2f} x)",
        f"{decision_s:.1f}",
        *(f"{share * one:.0f} ({share * one / decision_s:.1f} x)" for one in (chats_s, cached_s)),
    ]


def _text(dice: random.Random, tokens: int) -> str:
    return "".join(dice.choice(LETTERS) for _ in range(tokens))


async def _cpu_s(engine: EngineClient, work: Awaitable[object]) -> float:
    before = _process_s(engine.pid)
    await work
    return _process_s(engine.pid) - before


def _process_s(pid: int | None) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _decide(engine: EngineClient, context: str, questions: list[str]) -> None:
    command = ScoreLabels(
        id=f"d{next(NUMBERS)}",
        prompt=context,
        questions=[Question(text=text, labels=["a", "b"]) for text in questions],
    )
    async with await engine.score_labels(command) as scoring:
        await scoring.answer()


async def _answer(engine: EngineClient, prompt: list[int]) -> None:
    request = Generate(
        id=f"c{next(NUMBERS)}",
        prompt=prompt,
        max_tokens=1,
        sampling=Sampling(temperature=0, logprobs=2),
    )
    async with await engine.generate(request) as generation:
        _ = [delta async for delta in generation]


async def _answers(engine: EngineClient, prompts: list[list[int]]) -> None:
    await asyncio.gather(*(_answer(engine, prompt) for prompt in prompts))


async def _one_by_one(engine: EngineClient, prompts: list[list[int]]) -> None:
    for prompt in prompts:
        await _answer(engine, prompt)


if __name__ == "__main__":
    main()
