"""Tokens per second beside busy processes and without them, with the default thread count and with
fixed ones, in turns.

    python -m benchmarks.busy_machine [--model MODEL.gguf] [--busy 0,2] [--streams 1,8]

Without --model a llama of random weights with 135 million parameters is written first. The last
columns are the default's speed over that of one thread, and over that of all cores.
"""

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import Workload, measure, open_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Sampling

GREEDY = Sampling(temperature=0)
NAMES = ("default", "one thread", "all cores")


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Run `number` other processes that never wait."""
    command = (sys.executable, "-c", "while True: pass")
    loops = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def speeds(model: Path, threads: int | None, works: list[Workload], busy: int) -> list[float]:
    """Tokens per second of each workload, of an engine of its own that has computed before."""
    config = EngineConfig(model_path=model, slots=8, context_tokens=1024, threads=threads)
    dice = random.Random(0)
    async with EngineClient(config) as engine:
        await engine.ready()
        await measure(engine, works[0], dice, GREEDY)
        with busy_loops(busy):
            return [(await measure(engine, work, dice, GREEDY))["tokens/s"] for work in works]


async def compare(arguments: argparse.Namespace, model: Path) -> None:
    """Run and print the medians."""
    streams = [int(number) for number in arguments.streams.split(",")]
    works = [
        Workload(name=f"x{number}", streams=number, new_tokens=arguments.tokens)
        for number in streams
    ]
    table = Table(title=f"tokens/s, medians of {arguments.repeat}")
    for name in ("busy", "streams", *NAMES, "of one", "of all"):
        table.add_column(name, justify="right")
    counts = dict(zip(NAMES, (None, 1, len(os.sched_getaffinity(0))), strict=True))
    for busy in [int(number) for number in arguments.busy.split(",")]:
        runs: dict[str, list[list[float]]] = {name: [] for name in NAMES}
        for _ in range(arguments.repeat):
            for name, threads in counts.items():
                runs[name].append(await speeds(model, threads, works, busy))
        for place, number in enumerate(streams):
            default, one, every = (
                statistics.median(run[place] for run in runs[name]) for name in NAMES
            )
            cells = [f"{speed:.1f}" for speed in (default, one, every)]
            ratios = [f"{default / one:.2f}", f"{default / every:.2f}"]
            table.add_row(str(busy), str(number), *cells, *ratios)
    Console(width=120).print(table)


def main() -> None:
    """Read the command line, write a model if none is given, compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--busy", default="0,2", help="busy processes")
    parser.add_argument("--streams", default="1,8")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    with open_model(arguments.model) as model:
        asyncio.run(compare(arguments, model))


if __name__ == "__main__":
    main()
