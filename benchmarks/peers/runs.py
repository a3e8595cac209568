"""One run of a workload against a server that answers, and what it showed."""

import asyncio
import itertools
import random
import time
from typing import Any

import numpy as np

from benchmarks.peers.client import RequestTrace, send_chat
from benchmarks.peers.workloads import (
    CHAT_TOKENS,
    NAMED,
    Workload,
    body,
    chat_messages,
    requests,
)

__all__ = ["measure"]

Figures = dict[str, Any]

_DECODING, _DECODING_TOKENS, _NEWCOMER_AFTER_S = 15, 160, 5.0


async def measure(name: str, port: int, seed: str) -> Figures:
    """The figures of the workload with this name; the seed decides its prompts."""
    dice = random.Random(f"{seed}/{name}")
    if name == "MT":
        return await _chat(port, dice)
    if name == "N15":
        return await _arrival(port, dice)
    return await _streams(NAMED[name], port, dice)


async def _streams(work: Workload, port: int, dice: random.Random) -> Figures:
    seen: list[RequestTrace] = []
    started_at = time.perf_counter()
    for bodies in requests(work, dice):
        seen += await asyncio.gather(*(send_chat(port, one) for one in bodies))
    return _figures(seen, time.perf_counter() - started_at)


async def _chat(port: int, dice: random.Random) -> Figures:
    """A chat of several turns, each with all that was said before it."""
    system, *turns = chat_messages(dice)
    said, seen = [system], []
    started_at = time.perf_counter()
    for turn in turns:
        said.append(turn)
        answer = await send_chat(port, body(said, CHAT_TOKENS, dice))
        seen.append(answer)
        said.append({"role": "assistant", "content": answer.text})
    figures = _figures(seen, time.perf_counter() - started_at)
    later = [one.arrivals[0] for one in seen[1:] if one.arrivals]
    return figures | {"later_ttft_p50_ms": _milliseconds(later, 50)}


async def _arrival(port: int, dice: random.Random) -> Figures:
    """Time to first token of a request that arrives while all but one of the slots decode."""
    talk = Workload(name="talk", streams=_DECODING, new_tokens=_DECODING_TOKENS)
    new = Workload(name="new", streams=1, prompt_words=256, new_tokens=16)
    (decoding,), ((arrival,),) = requests(talk, dice), requests(new, dice)
    started_at = time.perf_counter()
    talking = [asyncio.create_task(send_chat(port, one)) for one in decoding]
    await asyncio.sleep(_NEWCOMER_AFTER_S)
    came_s = time.perf_counter() - started_at
    answer = await send_chat(port, arrival)
    seen = await asyncio.gather(*talking)
    figures = _figures([*seen, answer], time.perf_counter() - started_at)
    were_talking = [one for one in seen if one.arrivals and one.arrivals[-1] > came_s]
    return figures | {
        "arrival_ttft_ms": _milliseconds(answer.arrivals[:1], 50),
        "talkers_longest_gap_ms": _milliseconds(_gaps(were_talking), 100),
        "decoding": len(were_talking),
    }


def _figures(seen: list[RequestTrace], wall_s: float) -> Figures:
    good = [one for one in seen if one.error is None]
    firsts = [one.arrivals[0] for one in good]
    tokens = sum(one.tokens for one in good)
    return {
        "requests": len(seen),
        "failed": len(seen) - len(good),
        "error": next((one.error for one in seen if one.error), None),
        "tokens": tokens,
        "prompt_tokens": sum(one.prompt_tokens for one in good),
        "cached_tokens": sum(one.cached_tokens for one in good),
        "wall_s": round(wall_s, 3),
        "tokens_s": round(tokens / wall_s, 2),
        "ttft_p50_ms": _milliseconds(firsts, 50),
        "ttft_p95_ms": _milliseconds(firsts, 95),
        "itl_p50_ms": _milliseconds(_gaps(good), 50),
        "itl_p95_ms": _milliseconds(_gaps(good), 95),
    }


def _gaps(seen: list[RequestTrace]) -> list[float]:
    return [later - earlier for one in seen for earlier, later in itertools.pairwise(one.arrivals)]


def _milliseconds(seconds: list[float], percent: float) -> float | None:
    return round(1000 * float(np.percentile(seconds, percent)), 2) if seconds else None
