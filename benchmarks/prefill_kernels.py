"""Prefill by llama.cpp's kernels and by ours, at each level that the processor has, in turns of one
process: tokens of a prompt per second, medians.

    python -m benchmarks.prefill_kernels [--model MODEL.gguf] [--repeat 3] [--threads 2] [--quick]

Without --model a llama of random weights with 135 million parameters (Q8_0) is written first.
`--quick` computes one short prompt once by each: it shows that the program runs, and no speed.
"""

import argparse
import random
import statistics
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.engine_throughput import open_model
from llm_backend.engine.llama import LlamaModel, capture_log
from llm_backend.engine.llama.prefill_kernels import Instructions
from llm_backend.engine.llama.prefill_kernels.kernel_library import PrefillKernels, prefill_kernels
from llm_backend.engine.messages import LoadModel, MissingKernels
from llm_backend.engine.messages.address import Address
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.operating_system import usable_cores

LENGTHS = (1000, 4000, 7000)
QUICK_LENGTHS = (256,)
PASS_TOKENS = 512

Speeds = dict[Instructions, list[float]]


def prefill(model: LlamaModel, tokens: list[int]) -> float:
    """Compute a prompt in an empty slot, pass by pass; return its tokens per second."""
    model.truncate(0, 0)
    sequence = Sequence(
        request=Address(1, "prompt"),
        index=0,
        tokens=tokens,
        max_length=len(tokens) + 1,
        arrived_at=0,
        slot=0,
    )
    began_at = time.perf_counter()
    while sequence.uncomputed_tokens:
        count = min(PASS_TOKENS, sequence.uncomputed_tokens)
        model.forward([ScheduledTokens(sequence, count)])
        sequence.computed += count
    return len(tokens) / (time.perf_counter() - began_at)


def measure(model: LlamaModel, kernels: PrefillKernels, tokens: list[int], repeat: int) -> Speeds:
    """Speeds of a prompt by each level, in turns."""
    levels = [level for level in Instructions if level <= kernels.supported]
    speeds: Speeds = {level: [] for level in levels}
    for number in range(repeat):
        first = number % len(levels)
        for level in levels[first:] + levels[:first]:
            kernels.allow(level)
            speeds[level].append(prefill(model, tokens))
    return speeds


def show(found: dict[int, Speeds]) -> None:
    """Print medians, and their ratio to those of llama.cpp's kernels."""
    table = Table(title="prefill, tokens per second (ratio)")
    table.add_column("tokens", justify="right")
    for level in next(iter(found.values())):
        table.add_column(level.title or "llama.cpp", justify="right")
    for length, speeds in found.items():
        medians = [statistics.median(one) for one in speeds.values()]
        ratios = [f"{one:,.0f} ({one / medians[0]:.1f})" for one in medians[1:]]
        table.add_row(f"{length:,}", f"{medians[0]:,.0f}", *ratios)
    Console().print(table)


def main() -> None:
    """Read the command line, write a model if none is given, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each length")
    parser.add_argument("--threads", type=int, help="all cores if not given")
    parser.add_argument("--quick", action="store_true", help="one short prompt, once")
    given = parser.parse_args()
    lengths = QUICK_LENGTHS if given.quick else LENGTHS
    with open_model(given.model) as path:
        config = LoadModel(
            model_path=path,
            slots=1,
            context_tokens=max(lengths) + 1,
            batch_tokens=PASS_TOKENS,
            draft_tokens=0,
            threads=given.threads or usable_cores(),
        )
        model = LlamaModel(config, capture_log())
        kernels = prefill_kernels()
        if isinstance(kernels, MissingKernels):
            print(f"There are no kernels of ours here: {kernels.value}.")
            return
        dice = random.Random(0)
        vocabulary = model.vocabulary.size
        found = {}
        for length in lengths:
            tokens = [dice.randrange(vocabulary // 8, vocabulary - 8) for _ in range(length)]
            found[length] = measure(model, kernels, tokens, 1 if given.quick else given.repeat)
        show(found)


if __name__ == "__main__":
    main()
