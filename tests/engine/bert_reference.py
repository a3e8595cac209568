"""The tiny BERT's forward pass in numpy, to hold the engine's scores against."""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from numpy.typing import NDArray

HEADS = 4


class Bert:
    """A BERT of one layer with a classification head of one label."""

    def __init__(self, path: Path) -> None:
        self._tensors = {
            tensor.name: np.array(tensor.data, dtype=np.float64)
            for tensor in GGUFReader(path).tensors
        }

    def relevance(self, tokens: list[int]) -> float:
        """Score of the classification head for these tokens, between 0 and 1."""
        hidden = np.tanh(self._linear(self._states(tokens)[0], "cls"))
        return float(1 / (1 + np.exp(-self._linear(hidden, "cls.output")[0])))

    def _states(self, tokens: list[int]) -> NDArray[np.float64]:
        embedded = self._tensors["token_embd.weight"][tokens]
        embedded = embedded + self._tensors["position_embd.weight"][: len(tokens)]
        embedded = embedded + self._tensors["token_types.weight"][0]
        states = self._normed(embedded, "token_embd_norm")
        states = self._normed(states + self._attention(states), "blk.0.attn_output_norm")
        inner = gelu(self._linear(states, "blk.0.ffn_up"))
        return self._normed(
            states + self._linear(inner, "blk.0.ffn_down"), "blk.0.layer_output_norm"
        )

    def _attention(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        queries, keys, values = (
            np.stack(np.split(self._linear(states, f"blk.0.attn_{name}"), HEADS, axis=1))
            for name in "qkv"
        )
        weights = np.exp(queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[2]))
        mixed = weights / weights.sum(axis=2, keepdims=True) @ values
        return self._linear(np.concatenate(mixed, axis=1), "blk.0.attn_output")

    def _linear(self, states: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return states @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]

    def _normed(self, states: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = states - states.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
        return normed * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]


def gelu(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The usual approximation by a hyperbolic tangent."""
    inner = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    return 0.5 * values * (1 + np.tanh(inner))
