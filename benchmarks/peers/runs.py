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
    RETURNING,
    Returning,
    Workload,
    body,
    chat_messages,
    requests,
    returning_messages,
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
    if name in RETURNING:
        return await _returning(RETURNING[name], port, dice)
    return await _streams(NAMED[name], port, dice)


async def _streams(work: Workload, port: int, dice: random.Random) -> Figures:
    seen: list[RequestTrace] = []
    started_at = time.perf_counter()
    for bodies in requests(work, dice):
        seen += await asyncio.gather(*(send_chat(port, one) for one in bodies))
    figures = _figures(seen, time.perf_counter() - started_at)
    if work.new_tokens > 1:
        return figures
    speeds = [one.prompt_tokens / one.arrivals[0] for one in seen if one.arrivals]
    return figures | {"prefill_tokens_s": round(float(np.median(speeds)), 1) if speeds else None}


async def _chat(port: int, dice: random.Random) -> Figures:
    """A chat of several turns, each with all that was said before it."""
    system, *turns = chat_messages(dice)
    messages, seen = [system], []
    started_at = time.perf_counter()
    for turn in turns:
        messages.append(turn)
        answer = await send_chat(port, body(messages, CHAT_TOKENS, dice))
        seen.append(answer)
        messages.append({"role": "assistant", "content": answer.text})
    figures = _figures(seen, time.perf_counter() - started_at)
    later = [one.arrivals[0] for one in seen[1:] if one.arrivals]
    return figures | {"later_ttft_p50_ms": _milliseconds(later, 50)}


async def _returning(work: Returning, port: int, dice: random.Random) -> Figures:
    """Chats that come back after all others have had a turn. `computed_ratio` is the number of
    prompt tokens that were computed by the least possible: each token of a chat once."""
    chats: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
        ([], returning_messages(work, dice)) for _ in range(work.chats)
    ]
    seen: list[list[RequestTrace]] = [[] for _ in chats]
    limit = asyncio.Semaphore(work.concurrency)

    async def take_turn(number: int, turn: int) -> None:
        async with limit:
            history, messages = chats[number]
            history.append(messages[turn])
            answer = await send_chat(port, body(history, work.new_tokens, dice))
            history.append({"role": "assistant", "content": answer.text})
            seen[number].append(answer)

    started_at = time.perf_counter()
    for turn in range(work.turns):
        await asyncio.gather(*(take_turn(number, turn) for number in range(work.chats)))
    every = [answer for chat in seen for answer in chat]
    figures = _figures(every, time.perf_counter() - started_at)
    later = [one.arrivals[0] for chat in seen for one in chat[1:] if one.arrivals]
    computed = sum(one.prompt_tokens - one.cached_tokens for one in every)
    answered = [[one for one in chat if one.error is None] for chat in seen]
    least = sum(chat[-1].prompt_tokens - _count_generated(chat[:-1]) for chat in answered if chat)
    return figures | {
        "later_ttft_p50_ms": _milliseconds(later, 50),
        "later_ttft_p95_ms": _milliseconds(later, 95),
        "computed_ratio": round(computed / least, 3) if least else None,
    }


def _count_generated(answers: list[RequestTrace]) -> int:
    """Tokens of the answers that are in the next prompt, and whose cells the decode passes left."""
    return sum(answer.tokens for answer in answers)


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
