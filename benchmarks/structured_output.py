"""Cost of following a schema: tokens per second of several streams without a schema and with one,
in turns, so that the drift of the machine's speed is the same for all.

    python -m benchmarks.structured_output [--streams 1,8,16] [--repeat 3] [--tokens 128]

The model has random weights; its 49,152 tokens are bytes, made-up words and what the schema's fixed
text is made of. Fixed text takes no pass of its own for each token, so answers by a schema can be
faster than free ones; `one a pass` is without that, and so tells what the choice among allowed
tokens costs.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import VOCABULARY, write_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, Sampling

NUMBERS = itertools.count()
ITEM = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 20, "maxLength": 80},
        "kind": {"enum": ["question", "answer", "remark"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 100},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
    },
    "required": ["title", "kind", "score", "tags"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": ITEM, "minItems": 100}
GRAMMAR = "start: %json " + json.dumps({**SCHEMA, "x-guidance": {"whitespace_flexible": False}})
KINDS = {
    "free": None,
    "schema": GRAMMAR,
    "one a pass": '%llguidance {"no_forcing": true}\n' + GRAMMAR,
}
FIXED = ['"title":"', '","kind":"', '","score":', ',"tags":["', '"]},{"', "question", "answer"]
LETTERS = "etaoinshrdlucmfwypvbgk"


def vocabulary(dice: random.Random) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level vocabulary, the end token first."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    letters = [chr(byte if byte in printable else next(spare)) for byte in range(256)]
    tokens = dict.fromkeys(["<|end|>", *letters])
    merges: list[str] = []
    while len(tokens) < VOCABULARY:
        word = FIXED[len(merges)] if len(merges) < len(FIXED) else random_word(dice)
        for end in range(2, len(word) + 1):
            if len(tokens) < VOCABULARY and word[:end] not in tokens:
                tokens[word[:end]] = None
                merges.append(f"{word[: end - 1]} {word[end - 1]}")
    return list(tokens), merges


def random_word(dice: random.Random) -> str:
    """A word, most often after a space."""
    word = "".join(dice.choices(LETTERS, weights=range(len(LETTERS), 0, -1), k=dice.randint(2, 9)))
    return f"\u0120{word}" if dice.random() < 0.7 else word


async def stream(engine: EngineClient, grammar: str | None, seed: int, count: int) -> int:
    """One answer; gives how many tokens it has."""
    dice, tokens = random.Random(seed), 0
    request = Generate(
        id=f"s{next(NUMBERS)}",
        prompt=[dice.randrange(1, VOCABULARY) for _ in range(30)],
        max_tokens=count,
        ignore_eos=True,
        grammar=grammar,
        sampling=Sampling(temperature=0.8, top_p=0.95, seed=seed),
    )
    async with await engine.generate(request) as generation:
        async for delta in generation:
            tokens = delta.completion_tokens
    return tokens


async def rate(engine: EngineClient, grammar: str | None, streams: int, count: int) -> float:
    """Tokens per second of `streams` concurrent answers."""
    begun = time.perf_counter()
    each = await asyncio.gather(
        *(stream(engine, grammar, next(NUMBERS), count) for _ in range(streams))
    )
    return sum(each) / (time.perf_counter() - begun)


async def run(arguments: argparse.Namespace, model: Path) -> None:
    """Measure and print."""
    numbers = [int(number) for number in arguments.streams.split(",")]
    config = EngineConfig(model_path=model, slots=max(numbers), context_tokens=1024)
    table = Table(title="tokens per second, medians", caption="ratios to what is free")
    for name in ("streams", *KINDS):
        table.add_column(name, justify="right")
    async with EngineClient(config) as engine:
        await engine.ready()
        for grammar in KINDS.values():  # compiles it
            await rate(engine, grammar, 1, 8)
        for streams in numbers:
            rates: dict[str, list[float]] = {name: [] for name in KINDS}
            for _ in range(arguments.repeat):
                for name, grammar in KINDS.items():
                    rates[name].append(await rate(engine, grammar, streams, arguments.tokens))
            ratio = {
                name: statistics.median(
                    one / free for one, free in zip(each, rates["free"], strict=True)
                )
                for name, each in rates.items()
            }
            shown = [f"{statistics.median(rates[name]):.0f} ({ratio[name]:.2f})" for name in KINDS]
            table.add_row(str(streams), *shown)
    Console(width=100).print(table)


def main() -> None:
    """Read the command line, write a model, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", default="1,8,16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=128)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "random-135m.gguf"
        write_model(model, *vocabulary(random.Random(0)))
        asyncio.run(run(arguments, model))


if __name__ == "__main__":
    main()
