"""A long prompt outlives the server: what it had computed of it is read from files."""

import re
from pathlib import Path

import httpx

from tests.serving import Served, serve

SYSTEM = "You are a friendly assistant who answers in short sentences and likes cats. " * 8


def told(served: Served, question: str) -> dict:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    chat = {"model": "builtin", "messages": messages, "temperature": 0, "max_tokens": 16}
    answer = httpx.post(f"{served.base_url}/chat/completions", json=chat, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


def cached(answer: dict) -> int:
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def metric(served: Served, name: str) -> float:
    lines = httpx.get(f"{served.address}/metrics").text
    found = re.search(rf'^llm_backend_engine_{name}{{model="builtin"}} (\S+)$', lines, re.MULTILINE)
    assert found is not None, lines
    return float(found[1])


def test_a_long_prompt_is_not_computed_again_after_a_restart(tmp_path: Path):
    kept = tmp_path / "kept"
    flags = (
        "--prefix-cache-dir", str(kept), "--prefix-cache-min-tokens", "64", "--threads", "1",
        "--no-flash-attention",  # what is read rounds as what was computed
    )  # fmt: skip
    with serve(tmp_path / "data", *flags) as served:
        first = told(served, "Who are you?")
    with serve(tmp_path / "data", *flags, "--processes", "2") as served:
        again, other = told(served, "Who are you?"), told(served, "What is a cat?")
        reads, files = metric(served, "prefix_reads_total"), metric(served, "prefix_files")

    assert cached(first) == 0
    assert min(cached(again), cached(other)) > 64
    assert text(again) == text(first)
    assert reads == 1
    assert files >= 1
    assert list(kept.glob("builtin-*/*.prefix"))
