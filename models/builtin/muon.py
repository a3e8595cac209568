"""Muon: momentum whose matrix updates are made nearly orthogonal, so that few steps teach much."""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

# Coefficients of a quintic that drives every singular value towards one in five rounds.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """For the two-dimensional weights inside the layers; embeddings and norms are for AdamW."""

    def __init__(
        self, weights: Iterable[Tensor], *, lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weights in _same_shapes(group["params"]):
                self._step_together(weights, group)

    def _step_together(self, weights: list[Tensor], group: dict) -> None:
        rows, columns = weights[0].shape
        updates = [self._momentum(weight, group["momentum"]) for weight in weights]
        for weight, update in zip(weights, orthogonal(torch.stack(updates)), strict=True):
            weight.mul_(1 - group["lr"] * group["decay"])
            weight.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead of the running mean of gradients."""
        mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def orthogonal(matrices: Tensor) -> Tensor:
    """Roughly the nearest orthogonal matrices: a Newton-Schulz iteration (count, rows, columns)."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = _QUINTIC
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _same_shapes(weights: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for weight in weights:
        groups[weight.shape].append(weight)
    return list(groups.values())
