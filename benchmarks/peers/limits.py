"""Throughput of the model without a server: llama.cpp's own batched decoding."""

import json
import subprocess
from typing import Any

from benchmarks.peers import build
from benchmarks.peers.servers import Setup

__all__ = ["limits"]

_SHARED_TOKENS = 925  # what S16's prompt is in tokens, as nearly as it matters


def limits(
    setup: Setup, streams: list[int], prompt_tokens: int, *, shares: bool
) -> dict[str, dict[str, Any]]:
    """By workload, tokens per second for each of `streams` with prompts of `prompt_tokens`, no
    sampling, no HTTP; and with `shares` the same for a prompt that all of 16 share.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in _rows(setup, prompt_tokens, 128, streams) if streams else []:
        found[f"W{row['pl']}"] = {
            "tokens_s": row["pl"] * row["tg"] / row["t"],
            "decode_tokens_s": row["speed_tg"],
        }
    for row in _rows(setup, _SHARED_TOKENS, 64, [16], "-pps") if shares else []:
        found["S16"] = {
            "tokens_s": row["pl"] * row["tg"] / row["t"],
            "decode_tokens_s": row["speed_tg"],
        }
    return found


def _rows(
    setup: Setup, prompt: int, new: int, streams: list[int], *more: str
) -> list[dict[str, Any]]:
    threads = str(setup.threads)
    output = subprocess.run(
        [
            *(str(build.BATCHED_BENCH), "-m", str(setup.model), "-fa", "on"),
            *("-c", str(max(streams) * setup.context_tokens), "-t", threads, "-tb", threads),
            *("-npp", str(prompt), "-ntg", str(new), "-npl", ",".join(map(str, streams))),
            *("--output-format", "jsonl", *more),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
