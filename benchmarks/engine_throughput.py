"""Throughput of the engine without HTTP: tokens per second, time to the first token and between
tokens, at several numbers of streams, and with a system prompt that all of them share.

    python benchmarks/engine_throughput.py [--model MODEL.gguf] [--streams 1,8,16] [--repeat 3]

Without --model a llama of random weights with 135 million parameters (Q8_0) is written first: speed
does not depend on the values. Prompts are random tokens, so nothing but the shared prefix repeats.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from rich.console import Console
from rich.table import Table

from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Generate, Sampling

NUMBERS = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Concurrent streams, each with a prompt of its own after a prefix that all share."""

    name: str
    streams: int
    prompt_tokens: int = 70
    shared_tokens: int = 0
    new_tokens: int = 128


@dataclass(kw_only=True)
class Stream:
    """Timing of one request, in seconds from its start."""

    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0
    cached_tokens: int = 0


async def stream(engine: EngineClient, prompt: list[int], count: int, sampling: Sampling) -> Stream:
    """Generate `count` tokens and note when each delta came."""
    seen, started_at = Stream(), time.perf_counter()
    request = Generate(
        id=f"b{next(NUMBERS)}",
        prompt=prompt,
        max_tokens=count,
        ignore_eos=True,
        sampling=sampling,
    )
    async with await engine.generate(request) as generation:
        async for delta in generation:
            seen.arrivals.append(time.perf_counter() - started_at)
            seen.tokens, seen.cached_tokens = delta.completion_tokens, delta.cached_tokens
    return seen


async def measure(
    engine: EngineClient, work: Workload, dice: random.Random, sampling: Sampling
) -> dict[str, float]:
    """One run of a workload."""
    vocabulary = (await engine.ready()).vocabulary_size
    shared = [dice.randrange(256, vocabulary - 8) for _ in range(work.shared_tokens)]
    prompts = [
        shared + [dice.randrange(256, vocabulary - 8) for _ in range(work.prompt_tokens)]
        for _ in range(work.streams)
    ]
    started_at = time.perf_counter()
    streams = await asyncio.gather(
        *(stream(engine, prompt, work.new_tokens, sampling) for prompt in prompts)
    )
    wall_s = time.perf_counter() - started_at
    firsts = [seen.arrivals[0] for seen in streams]
    gaps = [b - a for seen in streams for a, b in itertools.pairwise(seen.arrivals)]
    return {
        "tokens/s": sum(seen.tokens for seen in streams) / wall_s,
        "first p50 ms": 1000 * statistics.median(firsts),
        "first max ms": 1000 * max(firsts),
        "next p50 ms": 1000 * statistics.median(gaps),
        "next p95 ms": 1000 * float(np.percentile(gaps, 95)),
        "cached": statistics.mean(seen.cached_tokens for seen in streams),
    }


def resident_mib(pid: int | None) -> float:
    """Peak resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


SIZE, LAYERS, HEADS, KEY_HEADS, FEED_FORWARD, VOCABULARY = 576, 30, 9, 3, 1536, 49152
LAYER_SHAPES = {
    "attn_q": (SIZE, SIZE),
    "attn_k": (SIZE // HEADS * KEY_HEADS, SIZE),
    "attn_v": (SIZE // HEADS * KEY_HEADS, SIZE),
    "attn_output": (SIZE, SIZE),
    "ffn_gate": (FEED_FORWARD, SIZE),
    "ffn_up": (FEED_FORWARD, SIZE),
    "ffn_down": (SIZE, FEED_FORWARD),
}


TOKENS = tuple(f"<{number}>" for number in range(VOCABULARY))


@contextmanager
def open_model(given: Path | None) -> Iterator[Path]:
    """The given model, or one of random weights that is deleted at the end."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "random-135m.gguf"
        write_model(model)
        yield model


def write_model(
    path: Path,
    tokens: Sequence[str] = TOKENS,
    merges: Sequence[str] = ("< 0",),
    *,
    tensors: Iterable[tuple[str, np.ndarray]] | None = None,
    layers: int = LAYERS,
) -> None:
    """A llama of Q8_0 weights, random ones unless given, with 135 million parameters and norms of
    one; the first token ends an answer."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(SIZE)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(0)
    writer.add_vocab_size(VOCABULARY)
    kind = GGMLQuantizationType.Q8_0
    for name, values in tensors or random_tensors():
        writer.add_tensor(f"{name}.weight", quants.quantize(values, kind), raw_dtype=kind)
    norms = [f"blk.{layer}.{part}_norm" for layer in range(layers) for part in ("attn", "ffn")]
    for name in (*norms, "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(SIZE, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_tensors() -> Iterator[tuple[str, np.ndarray]]:
    """Embeddings and layers by chance."""
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (VOCABULARY, SIZE)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in LAYER_SHAPES.items()}
    for name, shape in shapes.items():
        yield name, rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)


async def run(arguments: argparse.Namespace, model: Path) -> None:
    """Measure every workload and print the table of medians."""
    streams = [int(number) for number in arguments.streams.split(",")]
    workloads = [Workload(name=f"apart x{number}", streams=number) for number in streams]
    shared = {"shared_tokens": 900, "prompt_tokens": 25, "new_tokens": 64}
    workloads.append(Workload(name=f"shared x{max(streams)}", streams=max(streams), **shared))
    sampling = Sampling(temperature=arguments.temperature, top_p=arguments.top_p, seed=1)
    config = EngineConfig(
        model_path=model,
        slots=max(streams),
        context_tokens=arguments.context,
        use_extra_buffers=not arguments.no_extra_buffers,
        threads=arguments.threads,
        log_level=arguments.log_level,
    )
    dice = random.Random(arguments.seed)
    started_at = time.perf_counter()
    async with EngineClient(config) as engine:
        info = await engine.ready()
        title = f"{info.description}, ready in {time.perf_counter() - started_at:.1f} s"
        runs = {
            work: [await measure(engine, work, dice, sampling) for _ in range(arguments.repeat)]
            for work in workloads
        }
        memory = f"peak resident memory {resident_mib(engine.pid):.0f} MiB"
    show(title, memory, runs)


def show(title: str, caption: str, runs: dict[Workload, list[dict[str, float]]]) -> None:
    """Print medians."""
    table = Table(title=title, caption=caption)
    columns = list(next(iter(runs.values()))[0])
    for name in ("workload", *columns):
        table.add_column(name, justify="left" if name == "workload" else "right")
    for work, measured in runs.items():
        medians = [statistics.median(item[column] for item in measured) for column in columns]
        table.add_row(work.name, *(f"{value:.1f}" for value in medians))
    Console(width=120).print(table)


def main() -> None:
    """Read the command line, write a model if none is given, run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--streams", default="1,8,16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, help="all cores if not given")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-extra-buffers", action="store_true")
    parser.add_argument("--log-level", default="WARNING")
    arguments = parser.parse_args()
    with open_model(arguments.model) as model:
        asyncio.run(run(arguments, model))


if __name__ == "__main__":
    main()
