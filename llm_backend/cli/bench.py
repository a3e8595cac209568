"""`llm-backend bench`: a small load test of a running server."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import typer

from llm_backend.cli.api import Api, ApiRequestError
from llm_backend.cli.chat import first_model
from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.options import ApiKey, BaseUrl

_WORD = "word "


@dataclass(frozen=True, kw_only=True)
class _Measurement:
    """Measurements of one request: time to first token, total time, tokens of the answer."""

    first_s: float
    whole_s: float
    tokens: int


def bench(
    base_url: BaseUrl = "http://127.0.0.1:8000/v1",
    model: Annotated[
        str | None, typer.Option(help="Model to test; the first one by default.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Number of chats.")] = 16,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Concurrent chats.")] = 4,
    prompt_words: Annotated[int, typer.Option(min=1, help="Words of each prompt.")] = 32,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    api_key: ApiKey = None,
) -> None:
    """Send streamed chats to a running server and print its throughput and latency.

    Answers have exactly --max-tokens tokens on servers that honour `ignore_eos`, as this one does.
    The chats are not stored.
    """
    try:
        api = Api(base_url, api_key)
        name = model or first_model(api)
        _run(api, name, 0, prompt_words, 1)  # warm-up: loads the model
        started_at = time.monotonic()
        with ThreadPoolExecutor(concurrency) as pool:
            runs = list(
                pool.map(
                    lambda number: _run(api, name, number, prompt_words, max_tokens),
                    range(1, requests + 1),
                )
            )
    except ApiRequestError as error:
        exit_with_error(str(error))
    figures = summarize(name, runs, time.monotonic() - started_at)
    if as_json:
        print(json.dumps(figures, indent=2))
    else:
        for label, value in figures.items():
            print(f"{label:<28} {value}")


def _run(api: Api, model: str, number: int, words: int, max_tokens: int) -> _Measurement:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"{number} {_WORD * words}"}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
    }
    started_at, first_s, tokens = time.monotonic(), None, 0
    for chunk in api.events("/chat/completions", body):
        has_content = any(
            (one.get("delta") or {}).get("content") for one in chunk.get("choices") or ()
        )
        if has_content and first_s is None:
            first_s = time.monotonic() - started_at
        if usage := chunk.get("usage"):
            tokens = usage.get("completion_tokens") or 0
    whole_s = time.monotonic() - started_at
    return _Measurement(
        first_s=whole_s if first_s is None else first_s, whole_s=whole_s, tokens=tokens
    )


def summarize(model: str, runs: Sequence[_Measurement], elapsed_s: float) -> dict[str, str | float]:
    """Return the figures of all runs: rates, and percentiles of the latencies."""
    firsts, wholes = sorted(run.first_s for run in runs), sorted(run.whole_s for run in runs)
    return {
        "model": model,
        "requests": len(runs),
        "seconds": round(elapsed_s, 3),
        "requests per second": round(len(runs) / elapsed_s, 2),
        "tokens per second": round(sum(run.tokens for run in runs) / elapsed_s, 1),
        "first token, median s": round(percentile(firsts, 0.5), 4),
        "first token, 95 % s": round(percentile(firsts, 0.95), 4),
        "whole answer, median s": round(percentile(wholes, 0.5), 4),
        "whole answer, 95 % s": round(percentile(wholes, 0.95), 4),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that at most this share of the sorted values is below."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
