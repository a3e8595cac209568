"""Random tensors that tiny models of tests share."""

import numpy as np
from gguf import GGUFWriter

__all__ = ["RandomWeights"]


class RandomWeights:
    """Random tensors of a file."""

    def __init__(self, writer: GGUFWriter, rng: np.random.Generator) -> None:
        self._writer, self._rng = writer, rng

    def add(self, name: str, *shape: int) -> None:
        values = self._rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3)
        self._writer.add_tensor(name, values)

    def ones(self, name: str, length: int) -> None:
        self._writer.add_tensor(name, np.ones(length, np.float32))

    def norm(self, name: str, length: int) -> None:
        self.ones(f"{name}.weight", length)
        self._writer.add_tensor(f"{name}.bias", np.zeros(length, np.float32))

    def dense(self, name: str, rows: int, width: int) -> None:
        self.add(f"{name}.weight", rows, width)
        self.add(f"{name}.bias", rows)
