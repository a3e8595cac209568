"""Placement of a model's layers on GPUs: contiguous layers on each, all filled to the same share.

llama.cpp computes the first layers on the CPU and the others, with the output part, on the
devices in their order. If a mixture of experts (MoE) does not fit, experts of its first layers
stay on the CPU before whole layers do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

_BISECTIONS = 20


@dataclass(frozen=True, kw_only=True)
class LayerBytes:
    """Bytes of a layer on its device, and of its experts, which may be on another device."""

    layer: int
    experts: int = 0


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`counts` is the number of layers on each device; the output part counts as a layer. The
    other, first layers and the experts of the first `host_experts` layers stay on the CPU."""

    counts: tuple[int, ...]
    host_experts: int = 0

    @property
    def gpu_layers(self) -> int:
        """Number of layers on devices; the output part counts as a layer."""
        return sum(self.counts)

    def is_as_good_as(self, other: "Placement") -> bool:
        """True if this places no fewer layers on devices and, of the same number, no fewer
        experts."""
        mine, its = (self.gpu_layers, -self.host_experts), (other.gpu_layers, -other.host_experts)
        return mine >= its


@dataclass(frozen=True, kw_only=True)
class Placer:
    """Places `layers` on devices with `capacities` free bytes; the last layer is the output part.
    If `split` is not empty, it has each device's share of the layers."""

    layers: Sequence[LayerBytes]
    capacities: Sequence[int]
    split: Sequence[float] = ()

    def place(self) -> Placement:
        """Places as many layers as fit, then as many experts as fit."""
        if (counts := self._fill(0, 0)) is not None:
            return Placement(counts=counts)
        last = len(self.layers)
        with_experts = [index for index, one in enumerate(self.layers) if one.experts]
        hidden = with_experts[-1] + 1 if with_experts else 0
        if hidden and self._fill(0, hidden) is not None:
            few = _least(1, hidden, lambda count: self._fill(0, count) is not None)
            return Placement(counts=self._fill(0, few) or (), host_experts=few)
        first = _least(1, last, lambda start: self._fill(start, hidden) is not None)
        return Placement(counts=self._fill(first, hidden) or (), host_experts=hidden)

    def place_last(self, count: int) -> Placement:
        """Places the last `count` layers, whether they fit or not."""
        first = max(0, len(self.layers) - count)
        counts = self._fill(first, 0) or _proportional(len(self.layers) - first, self._shares())
        return Placement(counts=counts)

    def device_bytes(self, placement: Placement) -> tuple[int, ...]:
        """Bytes of the placed layers by device."""
        at, found = len(self.layers) - placement.gpu_layers, []
        for count in placement.counts:
            found.append(
                sum(self._size(at + step, placement.host_experts) for step in range(count))
            )
            at += count
        return tuple(found)

    def _size(self, index: int, host_experts: int) -> int:
        one = self.layers[index]
        return one.layer + (0 if index < host_experts else one.experts)

    def _fill(self, first: int, host_experts: int) -> tuple[int, ...] | None:
        """Counts by device of the layers from `first` on, each device filled to the same share;
        None if they do not fit."""
        sizes = [self._size(index, host_experts) for index in range(first, len(self.layers))]
        if self.split:
            counts = _proportional(len(sizes), self.split[: len(self.capacities)])
            return counts if self._fits(sizes, counts) else None
        best = self._fill_to(sizes, 1.0)
        if best is None:
            return None
        low, high = 0.0, 1.0
        for _ in range(_BISECTIONS if len(self.capacities) > 1 else 0):
            middle = (low + high) / 2
            lower = self._fill_to(sizes, middle)
            low, high = (low, middle) if lower else (middle, high)
            best = lower or best
        return best

    def _fill_to(self, sizes: Sequence[int], share: float) -> tuple[int, ...] | None:
        counts, at = [], 0
        for capacity in self.capacities:
            start, used = at, 0
            while at < len(sizes) and used + sizes[at] <= capacity * share:
                used += sizes[at]
                at += 1
            counts.append(at - start)
        return tuple(counts) if at == len(sizes) else None

    def _fits(self, sizes: Sequence[int], counts: Sequence[int]) -> bool:
        at = 0
        for count, capacity in zip(counts, self.capacities, strict=True):
            if sum(sizes[at : at + count]) > max(0, capacity):
                return False
            at += count
        return True

    def _shares(self) -> Sequence[float]:
        return self.split[: len(self.capacities)] or [max(0.0, one) for one in self.capacities]


def _proportional(count: int, split: Sequence[float]) -> tuple[int, ...]:
    """Distributes layers by shares, as llama.cpp does: a layer belongs to the first device whose
    part of the whole ends after it."""
    total = sum(split)
    shares = [one / total for one in split] if total > 0 else [1 / len(split)] * len(split)
    counts, ends = [0] * len(split), list(accumulate(shares))
    for layer in range(count):
        device = next((at for at, one in enumerate(ends) if one > layer / count), len(split) - 1)
        counts[device] += 1
    return tuple(counts)


def _least(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least number that `holds`, from `low` to `high`, if all greater ones do; `high` if
    none."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
