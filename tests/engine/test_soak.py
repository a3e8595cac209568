"""Thousands of requests of every kind, many given up half-way: nothing is lost and nothing grows.

`make test` sends some hundred, `make soak` ten thousand, which is enough to hold memory to account.
"""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from llm_backend.engine import CommandFailed, EngineClient, EngineDown
from llm_backend.engine.messages import Generate, Priority, Sampling
from tests.engine.conftest import answer, config, eventually

AT_ONCE = 24
ENOUGH_FOR_MEMORY = 5000
GROWTH = 1.02
GRAMMARS = ("start: /[ab]{1,9}/", 'start: "yes" | "no"', 'start: %json {"type": "integer"}')
PREFIXES = ("the cat sat on the mat and ", "one two three four five six seven eight nine ten " * 4)


def any_request(dice: random.Random, name: str) -> Generate:
    """Sizes, choices, samplers and grammars as they come; some share a prefix, some cannot fit."""
    length = dice.choice((3, 20, 90, 260))
    text = dice.choice(("", *PREFIXES)) + "".join(dice.choices("abcdefgh ", k=length))
    choices = dice.choice((1, 1, 1, 2, 4))
    return Generate(
        id=name,
        prompt=text,
        n=choices,
        best_of=dice.choice((None, choices + 1)),
        max_tokens=dice.choice((0, 1, 5, 30)),
        stop=dice.choice(([], ["th"], ["a", "the cat"])),
        ignore_eos=dice.random() < 0.5,
        echo=dice.random() < 0.2,
        grammar=dice.choice((None, None, None, *GRAMMARS)),
        priority=dice.choice(list(Priority)),
        sampling=Sampling(
            temperature=dice.choice((0, 1)),
            top_k=dice.choice((0, 5)),
            top_p=dice.choice((1.0, 0.8)),
            frequency_penalty=dice.choice((0.0, 0.5)),
            logprobs=dice.choice((None, None, 0, 3)),
        ),
    )


async def live_one(engine: EngineClient, request: Generate, dice: random.Random) -> str:
    """Ask, and read to the end or give up at some point; gives how it went."""
    deltas_until_cancel = dice.choice((None, None, None, 0, 1, 3))
    try:
        async with await engine.generate(request) as generation:
            ended = 0
            async for delta in generation:
                ended += delta.finish_reason is not None
                if deltas_until_cancel is not None:
                    deltas_until_cancel -= 1
                    if deltas_until_cancel < 0:
                        return "given up"
    except CommandFailed as refused:
        return str(refused.failure)
    assert ended == request.n
    return "answered"


async def live(engine: EngineClient, count: int, dice: random.Random) -> list[str]:
    """`count` requests, some at once; gives how each went."""
    semaphore = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with semaphore:
            return await live_one(engine, any_request(dice, f"soak-{number}"), dice)

    return await asyncio.gather(*(one(number) for number in range(count)))


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("the process reports no resident size")


async def test_engine_soak_ends_every_request_without_growth(tiny_llama, pytestconfig):
    count = pytestconfig.getoption("--soak-requests")
    dice = random.Random(count)
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        await live(engine, count // 3, dice)
        before = resident_kib(engine.pid)
        outcomes = await live(engine, count, dice)
        status = await engine.status()
        after = resident_kib(engine.pid)

        assert (status.running, status.waiting) == (0, 0)
        assert set(outcomes) <= {"answered", "given up", "context_length"}
        assert outcomes.count("answered") > count // 4
        assert outcomes.count("given up") > count // 10
        assert await answer(engine, Generate(id="last", prompt="the cat", max_tokens=3))
        if count >= ENOUGH_FOR_MEMORY:
            assert after <= before * GROWTH


@pytest.mark.parametrize("seed", range(3))
async def test_engine_soak_survives_kills_at_any_moment(tiny_llama, seed):
    dice = random.Random(seed)
    async with EngineClient(config(tiny_llama, quarantine_weight=100, restart_limit=100)) as engine:
        await engine.ready()
        requests = [any_request(dice, f"killed-{number}") for number in range(60)]
        lives = [asyncio.create_task(live_one(engine, request, dice)) for request in requests]
        await asyncio.sleep(dice.uniform(0, 0.1))
        killed = engine.pid
        os.kill(killed, signal.SIGKILL)
        outcomes = await asyncio.gather(*lives, return_exceptions=True)
        await eventually(lambda: engine.state == "ready" and engine.pid != killed)
        status = await engine.status()

        assert all(isinstance(outcome, str | EngineDown) for outcome in outcomes)
        assert (status.running, status.waiting) == (0, 0)
        assert await answer(engine, Generate(id="last", prompt="the cat", max_tokens=3))
