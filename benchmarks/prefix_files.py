"""Gain by prefix files: time to first token of a prompt that is computed, that is read from a file
after a restart, and that a slot holds, with the size of the file.

    python -m benchmarks.prefix_files [--tokens 256,1024,3072] [--repeat 3] [--cache-type f16]

The model has the shape of one with 135 million parameters (Q8_0) and random weights: speed does not
depend on the values.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import VOCABULARY, write_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, PrefixLimits, Sampling

NUMBERS = itertools.count()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tokens", default="256,1024,3072")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cache-type", default="f16")
    options = parser.parse_args()
    lengths = [int(one) for one in options.tokens.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model.gguf")
        asyncio.run(_measure(folder, lengths, options.repeat, options.cache_type))


async def _measure(folder: Path, lengths: list[int], repeat: int, cache_type: str) -> None:
    table = Table("tokens", "computed, ms", "from a file, ms", "from a slot, ms", "file, MB")
    for length in lengths:
        rounds = [await _round(folder, length, seed, cache_type) for seed in range(repeat)]
        table.add_row(
            str(length), *(f"{statistics.median(one):.1f}" for one in zip(*rounds, strict=True))
        )
    Console().print(table)


async def _round(
    folder: Path, length: int, seed: int, cache_type: str
) -> tuple[float, float, float, float]:
    """Milliseconds to the first token, three times, and megabytes."""
    limits = PrefixLimits(folder=str(folder / f"kept-{length}-{seed}"))
    config = EngineConfig(
        model_path=folder / "model.gguf",
        slots=2,
        context_tokens=4096,
        cache_type=cache_type,
        prefixes=limits,
    )
    dice = random.Random(seed)
    prompt = [dice.randrange(8, VOCABULARY) for _ in range(length)]
    warm_up = [dice.randrange(8, VOCABULARY) for _ in range(32)]
    async with EngineClient(config) as engine:
        await engine.ready()
        await _first_token_ms(engine, warm_up)
        computed = await _first_token_ms(engine, [*prompt, 8])
    async with EngineClient(config) as engine:
        await engine.ready()
        await _first_token_ms(engine, warm_up)
        read = await _first_token_ms(engine, [*prompt, 9])
        held = await _first_token_ms(engine, [*prompt, 10])
        status = await engine.status()
    assert status.prefix_reads == 1, "it was not read"
    return computed, read, held, status.prefix_bytes / 1e6


async def _first_token_ms(engine: EngineClient, prompt: list[int]) -> float:
    sampling = Sampling(temperature=0)
    request = Generate(id=f"p{next(NUMBERS)}", prompt=prompt, max_tokens=1, sampling=sampling)
    began_at = time.perf_counter()
    async with await engine.generate(request) as generation:
        _ = [delta async for delta in generation]
    return (time.perf_counter() - began_at) * 1000


if __name__ == "__main__":
    main()
