"""Trains the built-in model: `python -m models.builtin.train --folder build/builtin`.

Two processes of one thread each see different conversations and average their gradients. Seeds are
fixed.
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import distributed, multiprocessing
from torch.nn import functional
from tqdm import tqdm

from models.builtin.batches import batches, learnt
from models.builtin.chat import Chat
from models.builtin.corpus import conversations
from models.builtin.muon import Muon
from models.builtin.network import Network, Shape
from models.builtin.tokenizer import load_tokenizer, train_tokenizer

SEED = 8000
CHECKPOINT_STEPS = 50
WARM_STEPS = 40
LAST_RATE = 0.02


def main() -> None:
    options = _options()
    options.folder.mkdir(parents=True, exist_ok=True)
    _learn_tokenizer(options.folder / "tokenizer.json")
    meeting = options.folder / "meeting"
    meeting.unlink(missing_ok=True)
    multiprocessing.spawn(_run, (options, meeting.resolve()), nprocs=options.processes)


def save(network: Network, path: Path) -> None:
    """Weights and shape, replaced in one step so that an export never sees half a file."""
    unfinished = path.with_suffix(".unfinished")
    torch.save({"shape": asdict(network.shape), "weights": network.state_dict()}, unfinished)
    unfinished.replace(path)


def _learn_tokenizer(path: Path) -> None:
    if path.exists():
        return
    chat = Chat()
    talks = islice(conversations(SEED - 1), 8000)
    texts = [chat.whole(talk.messages, talk.tools) for talk in talks]
    train_tokenizer(texts, pieces=1400, blank_words=600).save(str(path))


def _run(rank: int, options: argparse.Namespace, meeting: Path) -> None:
    """One of the processes; the first one shows the progress and saves."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=options.processes,
        timeout=timedelta(days=1),
    )
    tokenizer = load_tokenizer(options.folder / "tokenizer.json")
    network = _network(tokenizer, options.resume)
    if rank == 0:
        print(
            f"{network.parameter_count:,} parameters, {tokenizer.get_vocab_size()} tokens",
            flush=True,
        )
    stream = batches(tokenizer, tokens_per_batch=options.batch_tokens, seed=options.seed + rank)
    losses = _train(network, tokenizer, stream, options)
    progress = tqdm(losses, desc="training", total=options.steps, mininterval=10, disable=rank != 0)
    average = math.nan
    for step, loss in enumerate(progress, 1):
        average = loss if math.isnan(average) else 0.95 * average + 0.05 * loss
        progress.set_postfix(loss=f"{average:.4f}", refresh=False)
        if rank == 0 and (step % CHECKPOINT_STEPS == 0 or step == options.steps):
            save(network, options.folder / "network.pt")
    distributed.destroy_process_group()


def _network(tokenizer: Tokenizer, resume: Path | None) -> Network:
    """A new network, or the saved one to go on with."""
    if resume is None:
        return Network(Shape(vocabulary=tokenizer.get_vocab_size()))
    saved = torch.load(resume, weights_only=True)
    network = Network(Shape(**saved["shape"]))
    network.load_state_dict(saved["weights"])
    return network


def _train(
    network: Network,
    tokenizer: Tokenizer,
    stream: Iterator[torch.Tensor],
    options: argparse.Namespace,
) -> Iterator[float]:
    """Takes the steps one by one; yields the loss of each."""
    optimizers = _optimizers(network, options.rate)
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _rate(step, options.steps, options.cooling)
        )
        for optimizer in optimizers
    ]
    for tokens in islice(stream, options.steps):
        loss = _loss(network, tokens, learnt(tokens, tokenizer))
        network.zero_grad(set_to_none=True)
        loss.backward()
        _average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for part in (*optimizers, *schedulers):
            part.step()
        yield loss.item()


def _loss(network: Network, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the assistant's tokens."""
    chosen = mask[:, :-1]
    with torch.autocast("cpu", torch.bfloat16):
        logits = network.logits(network(tokens[:, :-1])[chosen])
    return functional.cross_entropy(logits.float(), tokens[:, 1:][chosen])


def _average_gradients(network: Network) -> None:
    weights = list(network.parameters())
    together = torch.cat([weight.grad.flatten() for weight in weights])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for weight, mean in zip(weights, together.split([w.numel() for w in weights]), strict=True):
        weight.grad = mean.view_as(weight)


def _optimizers(network: Network, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [weight for weight in network.layers.parameters() if weight.dim() == 2]
    norms = [weight for weight in network.parameters() if weight.dim() == 1]
    groups = [
        {"params": [network.embedding.weight], "weight_decay": 0.01},
        {"params": norms, "weight_decay": 0.0},
    ]
    return [Muon(matrices, lr=rate), torch.optim.AdamW(groups, lr=rate / 5, betas=(0.9, 0.98))]


def _rate(step: int, steps: int, cooling: int) -> float:
    """Linear warm-up, then level, and over the last `cooling` steps half a cosine."""
    if step < WARM_STEPS:
        return (step + 1) / WARM_STEPS
    level = max(WARM_STEPS, steps - cooling)
    cooled = max(0, step - level) / max(1, steps - level)
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * cooled)) / 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/builtin"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--cooling", type=int, default=2000, help="last steps, of falling rate")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="per process and step")
    parser.add_argument("--rate", type=float, default=0.02, help="Muon's; AdamW has a fifth of it")
    parser.add_argument("--seed", type=int, default=SEED, help="of the conversations")
    parser.add_argument("--resume", type=Path, help="a network.pt to go on with")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
