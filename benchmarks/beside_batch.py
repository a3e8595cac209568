"""Time to first token of interactive requests while batch requests keep every slot busy, and the
speed of these batch requests.

    python -m benchmarks.beside_batch [--model MODEL.gguf] [--people 40] [--threads 2]

Without --model a llama of random weights with 135 million parameters is written first. Prompts are
random tokens, so nothing is shared.
"""

import argparse
import asyncio
import contextlib
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.engine_throughput import NUMBERS, open_model
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, Priority, Sampling

JOBS_AT_ONCE = 16  # twice the slots: as many as a server asks of a batch at the same time
JOB_PROMPT, JOB_TOKENS = 400, 32
PERSON_PROMPT, PERSON_TOKENS = 70, 8
PAUSE_S = 0.3  # between two people
WARM_S = 5.0  # until the batch is in its stride
UNDISTURBED_S = 10.0  # in which its speed is measured without people
GREEDY = Sampling(temperature=0)


@dataclass(kw_only=True)
class Asking:
    """Asks an engine with prompts of its own, and counts what batch work has come to."""

    engine: EngineClient
    dice: random.Random
    vocabulary: int
    batch_tokens: int = 0

    async def ask(self, prompt_tokens: int, tokens: int, priority: Priority) -> float:
        """Seconds to the first token of one answer, which is read to its end."""
        prompt = [self.dice.randrange(256, self.vocabulary - 8) for _ in range(prompt_tokens)]
        request = Generate(
            id=f"b{next(NUMBERS)}",
            prompt=prompt,
            max_tokens=tokens,
            ignore_eos=True,
            sampling=GREEDY,
            priority=priority,
        )
        began_at, first_s = time.perf_counter(), 0.0
        async with await self.engine.generate(request) as generation:
            async for _ in generation:
                first_s = first_s or time.perf_counter() - began_at
        return first_s

    async def people(self, number: int) -> list[float]:
        """Times to first token of interactive requests, one after the other."""
        waited = []
        for _ in range(number):
            await asyncio.sleep(PAUSE_S)
            waited.append(await self.ask(PERSON_PROMPT, PERSON_TOKENS, Priority.INTERACTIVE))
        return waited

    def speed(self) -> Callable[[], float]:
        """Return a function of the batch tokens per processor second from now on."""
        tokens, began_s = self.batch_tokens, processor_s(self.engine.pid)
        return lambda: (self.batch_tokens - tokens) / (processor_s(self.engine.pid) - began_s)

    @contextlib.asynccontextmanager
    async def batch(self) -> AsyncIterator[None]:
        """Batch work goes on meanwhile."""

        async def go_on() -> None:
            while True:
                await self.ask(JOB_PROMPT, JOB_TOKENS, Priority.BATCH)
                self.batch_tokens += JOB_PROMPT + JOB_TOKENS

        jobs = [asyncio.create_task(go_on()) for _ in range(JOBS_AT_ONCE)]
        try:
            yield
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


def processor_s(pid: int | None) -> float:
    """The processor's time that a process has had."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def run(model: Path, number: int, threads: int | None) -> None:
    """Measure and print."""
    config = EngineConfig(model_path=model, context_tokens=1024, threads=threads)
    async with EngineClient(config) as engine:
        info = await engine.ready()
        asking = Asking(engine=engine, dice=random.Random(0), vocabulary=info.vocabulary_size)
        async with asking.batch():
            await asyncio.sleep(WARM_S)
            undisturbed = asking.speed()
            await asyncio.sleep(UNDISTURBED_S)
            undisturbed_speed = undisturbed()
            disturbed = asking.speed()
            beside = await asking.people(number)
            disturbed_speed = disturbed()
        alone = await asking.people(number)
    for name, waited in (("alone", alone), ("beside a batch", beside)):
        print(
            f"first token {name:16} p50 {1000 * statistics.median(waited):6.0f} ms   "
            f"p95 {1000 * float(np.percentile(waited, 95)):6.0f} ms"
        )
    print(f"ratio of the medians {statistics.median(beside) / statistics.median(alone):17.2f}")
    print(
        f"batch work, tokens a second of the processor: {undisturbed_speed:.0f}, "
        f"beside people {disturbed_speed:.0f}"
    )


def main() -> None:
    """Read the command line, write a model if none is given, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--threads", type=int, help="all cores if not given")
    given = parser.parse_args()
    with open_model(given.model) as model:
        asyncio.run(run(model, given.people, given.threads))


if __name__ == "__main__":
    main()
