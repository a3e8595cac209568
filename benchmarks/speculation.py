"""Gain by speculation: tokens per second with and without it, in turns, for texts that copy
everything, for texts that copy nothing, and for misleading repetitions.

    python -m benchmarks.speculation [--repeat 2] [--streams 1,4] [--tokens 96] [--draft]

The model has the shape of one with 135 million parameters (Q8_0) and its speed, but weights by
which every token has one successor: a prompt that is a circle of successors is repeated for ever.
With `--draft` a model of two such layers, which knows the successors too, writes ahead.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import LAYER_SHAPES, LAYERS, SIZE, VOCABULARY, write_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Delta, Generate, Sampling

NUMBERS = itertools.count()
FIRST = 8  # tokens below it are left alone: one of them ends a generation
CIRCLE = 200  # tokens of one circle
CIRCLES = 64  # of the vocabulary; all other tokens follow each other in one line
SHARPNESS = 0.05  # of the successor over all other tokens: some 20 nats
DRAFT_LAYERS = 2
FEW = 40  # tokens that mislead: each pair comes again soon, and goes on differently


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prompt for each stream, and how it is gone on with."""

    name: str
    prompt: Callable[[random.Random], list[int]]
    sampling: Sampling


def circle(dice: random.Random) -> list[int]:
    """One circle and its beginning: all that follows is in it."""
    start = FIRST + CIRCLE * dice.randrange(CIRCLES)
    return [*range(start, start + CIRCLE), *range(start, start + 20)]


def line(dice: random.Random) -> list[int]:
    """Prompt whose continuation is not in the prompt, so that there is nothing to look up."""
    start = dice.randrange(FIRST + CIRCLE * CIRCLES, VOCABULARY - 2000)
    return list(range(start, start + CIRCLE + 20))


def noise(dice: random.Random) -> list[int]:
    """Few tokens in no order."""
    return [dice.randrange(FIRST, FIRST + FEW) for _ in range(CIRCLE + 20)]


TASKS = (
    Task(name="copy", prompt=circle, sampling=Sampling(temperature=0)),
    Task(
        name="copy, sampled", prompt=circle, sampling=Sampling(temperature=0.8, top_p=0.95, seed=1)
    ),
    Task(
        name="nothing to copy", prompt=line, sampling=Sampling(temperature=0.8, top_p=0.95, seed=1)
    ),
    Task(
        name="misleading",
        prompt=noise,
        sampling=Sampling(
            temperature=20, seed=1, logit_bias=dict.fromkeys(range(FIRST, FIRST + FEW), 2000)
        ),
    ),
)


def successors() -> np.ndarray:
    """The successor of each token: the next one, but the first of its circle after the last."""
    following = np.arange(1, VOCABULARY + 1)
    following[-1] = FIRST
    for number in range(CIRCLES):
        start = FIRST + CIRCLE * number
        following[start + CIRCLE - 1] = start
    return following


def tensors(layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Random weights; layers add nothing, and the output layer encodes each token's successor."""
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((VOCABULARY, SIZE), dtype=np.float32)
    output = np.empty_like(embedding)
    output[successors()] = np.float32(SHARPNESS) * embedding
    yield "token_embd", embedding
    yield "output", output
    for layer, (name, shape) in itertools.product(range(layers), LAYER_SHAPES.items()):
        scale = 0 if name in ("attn_output", "ffn_down") else 0.02
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        yield f"blk.{layer}.{name}", values


@dataclass(frozen=True, kw_only=True)
class Run:
    """Tokens per second of all streams together, and how many of the tokens had been guessed."""

    speed: float
    accepted: float
    drafted: float
    texts: list[str]


async def run(engine: EngineClient, task: Task, streams: int, tokens: int, seed: int) -> Run:
    """All streams at once, from the first token of the first to the last of the last."""
    dice = random.Random(seed)
    prompts = [task.prompt(dice) for _ in range(streams)]
    runs = await asyncio.gather(*(stream(engine, task, prompt, tokens) for prompt in prompts))
    begun, ended = max(begin for begin, *_ in runs), max(end for _, end, *_ in runs)
    made = sum(last.completion_tokens for *_, last, _ in runs)
    return Run(
        speed=made / (ended - begun),
        accepted=sum(last.accepted_tokens for *_, last, _ in runs) / made,
        drafted=sum(last.drafted_tokens for *_, last, _ in runs) / made,
        texts=[text for *_, text in runs],
    )


async def stream(
    engine: EngineClient, task: Task, prompt: list[int], tokens: int
) -> tuple[float, float, Delta, str]:
    """When one answer began and ended, its last delta, and its text."""
    request = Generate(
        id=f"b{next(NUMBERS)}",
        prompt=prompt,
        max_tokens=tokens,
        ignore_eos=True,
        sampling=task.sampling,
    )
    deltas: list[Delta] = []
    begun_at = 0.0
    async with await engine.generate(request) as generation:
        async for delta in generation:
            begun_at = begun_at or time.perf_counter()
            deltas.append(delta)
    text = "".join(delta.text for delta in deltas)
    return begun_at, time.perf_counter(), deltas[-1], text


async def compare(arguments: argparse.Namespace, model: Path, draft: Path | None) -> None:
    """Run every task with and without, in turns, and print the medians."""
    streams = [int(number) for number in arguments.streams.split(",")]
    settings = {"slots": max(streams), "context_tokens": 1024, "threads": arguments.threads}
    table = Table(title=f"{arguments.tokens} tokens a stream, medians of {arguments.repeat} pairs")
    for name in ("task", "streams", "without t/s", "with t/s", "ratio", "drafted", "accepted"):
        table.add_column(name, justify="left" if name == "task" else "right")
    async with (
        EngineClient(EngineConfig(model_path=model, speculation=False, **settings)) as plain,
        EngineClient(EngineConfig(model_path=model, draft_model_path=draft, **settings)) as ahead,
    ):
        await plain.ready()
        await ahead.ready()
        for task, count in itertools.product(TASKS, streams):
            pairs = []
            for seed in range(arguments.repeat):
                one = await run(plain, task, count, arguments.tokens, seed)
                two = await run(ahead, task, count, arguments.tokens, seed)
                if one.texts != two.texts:
                    print(f"{task.name}: the texts differ, as rounding differs by the batch")
                pairs.append((one, two))
            table.add_row(task.name, str(count), *row(pairs))
    Console(width=120).print(table)


def row(pairs: list[tuple[Run, Run]]) -> list[str]:
    """Medians; the ratio is that of the pairs, as the machine's speed drifts."""
    median = statistics.median
    return [
        f"{median(plain.speed for plain, _ in pairs):.1f}",
        f"{median(ahead.speed for _, ahead in pairs):.1f}",
        f"{median(ahead.speed / plain.speed for plain, ahead in pairs):.2f}",
        f"{median(ahead.drafted for _, ahead in pairs):.0%}",
        f"{median(ahead.accepted for _, ahead in pairs):.0%}",
    ]


def main() -> None:
    """Read the command line, write the model, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", type=Path, help="as this program wrote it; kept if given")
    parser.add_argument("--draft", action="store_true", help="with a draft model")
    parser.add_argument("--streams", default="1,4")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--threads", type=int, help="all cores if not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "successors-135m.gguf"
        if not model.exists():
            write_model(model, tensors=tensors(LAYERS))
        draft = Path(folder) / "draft.gguf" if arguments.draft else None
        if draft is not None:
            write_model(draft, tensors=tensors(DRAFT_LAYERS), layers=DRAFT_LAYERS)
        asyncio.run(compare(arguments, model, draft))


if __name__ == "__main__":
    main()
