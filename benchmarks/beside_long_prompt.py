"""Time between the tokens of some streams, while one request reads a long prompt, and alone before
and after: their texts grow, so their passes are slower after it.

    python -m benchmarks.beside_long_prompt [--model MODEL.gguf] [--long 12000] [--streams 15]
    python -m benchmarks.beside_long_prompt --control    # then the same lengths without the prompt

With --control a second engine decodes the same prompts without the long one, and the gaps at the
lengths that they had beside it are compared.
Without --model a llama of random weights with 135 million parameters is written first.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path

import numpy as np

from benchmarks.engine_throughput import NUMBERS, open_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, Sampling

PROMPT_TOKENS = 70
UNDISTURBED_S = 10.0


class Gaps:
    """Seconds between the tokens of streams, in parts of the run that have names, and the numbers
    of these tokens in their streams."""

    def __init__(self) -> None:
        self.part = ""
        self._seconds: dict[str, list[float]] = {}
        self._tokens: dict[str, list[int]] = {}

    def add(self, token: int, seconds: float) -> None:
        """Note the gap before a token, of the part that runs."""
        self._seconds.setdefault(self.part, []).append(seconds)
        self._tokens.setdefault(self.part, []).append(token)

    def tokens(self, part: str) -> range:
        """The numbers of the tokens of a part, from the least to the largest."""
        return range(min(self._tokens[part]), max(self._tokens[part]) + 1)

    def select(self, part: str, tokens: range) -> "Gaps":
        """The gaps of a part before tokens with these numbers."""
        selected = Gaps()
        selected.part = part
        for token, seconds in zip(self._tokens[part], self._seconds[part], strict=True):
            if token in tokens:
                selected.add(token, seconds)
        return selected

    def percentile(self, part: str, percent: float) -> float:
        """Milliseconds."""
        return 1000 * float(np.percentile(self._seconds[part], percent))

    def count(self, part: str) -> int:
        """Number of tokens."""
        return len(self._seconds[part])


async def stream(engine: EngineClient, prompt: list[int], tokens: int, gaps: Gaps) -> None:
    """Decode up to `tokens` tokens, or until the task is cancelled."""
    command = Generate(
        id=f"s{next(NUMBERS)}",
        prompt=prompt,
        max_tokens=tokens,
        ignore_eos=True,
        sampling=Sampling(),
    )
    async with await engine.generate(command) as generation:
        last, number = None, 0
        async for _ in generation:
            now = time.perf_counter()
            if last is not None and gaps.part:
                gaps.add(number, now - last)
            last, number = now, number + 1


async def run_control(config: EngineConfig, prompts: list[list[int]], tokens: range) -> Gaps:
    """Gaps before these tokens of the streams without a long prompt."""
    gaps = Gaps()
    gaps.part = "control"
    async with EngineClient(config) as engine:
        await engine.ready()
        await asyncio.gather(*(stream(engine, one, tokens.stop, gaps) for one in prompts))
    return gaps.select("control", tokens)


async def run(
    model: Path, long_tokens: int, streams_count: int, threads: int | None, *, has_control: bool
) -> None:
    """Measure and print."""
    config = EngineConfig(
        model_path=model, context_tokens=long_tokens + 64, threads=threads, slots=streams_count + 1
    )
    dice, gaps = random.Random(0), Gaps()
    async with EngineClient(config) as engine:
        info = await engine.ready()

        def prompt(tokens: int) -> list[int]:
            return [dice.randrange(256, info.vocabulary_size - 8) for _ in range(tokens)]

        prompts = [prompt(PROMPT_TOKENS) for _ in range(streams_count)]
        streams = [
            asyncio.create_task(stream(engine, one, long_tokens - PROMPT_TOKENS, gaps))
            for one in prompts
        ]
        await asyncio.sleep(UNDISTURBED_S)
        gaps.part = "before"
        await asyncio.sleep(UNDISTURBED_S)
        gaps.part = "beside"
        began_at = time.perf_counter()
        command = Generate(
            id=f"l{next(NUMBERS)}", prompt=prompt(long_tokens), max_tokens=1, sampling=Sampling()
        )
        async with await engine.generate(command) as generation:
            async for _ in generation:
                pass
        beside_s = time.perf_counter() - began_at
        gaps.part = "after"
        await asyncio.sleep(UNDISTURBED_S)
        gaps.part = ""
        for one in streams:
            one.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    seconds = {"before": UNDISTURBED_S, "beside": beside_s, "after": UNDISTURBED_S}
    for part in seconds:
        print(
            f"{part:8} {gaps.count(part) / seconds[part]:6.1f} tokens/s   next token "
            + "   ".join(f"p{p} {gaps.percentile(part, p):6.0f} ms" for p in (50, 95, 99, 100))
        )
    alone = (gaps.percentile("before", 95) + gaps.percentile("after", 95)) / 2
    ratio = gaps.percentile("beside", 95) / alone
    print(f"ratio of p95 {ratio:.2f}; the prompt of {long_tokens} tokens took {beside_s:.1f} s")
    if has_control:
        control = await run_control(config, prompts, gaps.tokens("beside"))
        p95_ms = control.percentile("control", 95)
        ratio = gaps.percentile("beside", 95) / p95_ms
        print(f"control  p95 {p95_ms:6.0f} ms   ratio of p95 at the same lengths {ratio:.2f}")


def main() -> None:
    """Read the command line, write a model if none is given, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--long", type=int, default=12_000, help="tokens of the long prompt")
    parser.add_argument("--streams", type=int, default=15)
    parser.add_argument("--threads", type=int, help="all cores if not given")
    parser.add_argument(
        "--control", action="store_true", help="decode the same lengths without the long prompt"
    )
    given = parser.parse_args()
    with open_model(given.model) as model:
        asyncio.run(run(model, given.long, given.streams, given.threads, has_control=given.control))


if __name__ == "__main__":
    main()
