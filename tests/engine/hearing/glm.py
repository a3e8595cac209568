"""Tensors of a tiny GLM-ASR: an encoder like Whisper's with rotary positions.

Names and shapes are those of `transformers`. llama.cpp has the order of rows that the model's
authors have, in which dimensions that are rotated together are neighbours.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Tensor = tuple[str, tuple[int, ...]]
"""The name and the shape of a tensor."""

SIZE, FORWARD, LAYERS, HEADS = 40, 160, 2, 2
MELS = 128
ROTATED = SIZE // HEADS // 2
"""The dimensions of each head that are rotated."""
STACKED = FORWARD // SIZE
"""Positions of the encoder that make one embedding."""


def tensors(text_size: int) -> Iterator[Tensor]:
    """The encoder's and the projector's tensors."""
    tower, projector = "model.audio_tower.", "model.multi_modal_projector."
    yield from _with_bias(f"{tower}conv1", (SIZE, MELS, 3))
    yield from _with_bias(f"{tower}conv2", (SIZE, SIZE, 3))
    for layer in range(LAYERS):
        yield from _layer(f"{tower}layers.{layer}.")
    yield from _with_bias(f"{tower}norm", (SIZE,))
    yield from _with_bias(f"{projector}linear_1", (2 * text_size, STACKED * SIZE))
    yield from _with_bias(f"{projector}linear_2", (text_size, 2 * text_size))


def in_order_of_ggml(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Puts the rows of queries and keys of the encoder in llama.cpp's order."""
    if "audio_tower" not in name or not any(one in name for one in ("q_proj", "k_proj")):
        return values
    heads = values.reshape(HEADS, SIZE // HEADS, -1)
    rotated = heads[:, :ROTATED].reshape(HEADS, 2, ROTATED // 2, -1).swapaxes(1, 2)
    ordered = np.concatenate([rotated.reshape(HEADS, ROTATED, -1), heads[:, ROTATED:]], axis=1)
    return ordered.reshape(values.shape)


def _layer(block: str) -> Iterator[Tensor]:
    for name in ("q", "v", "o"):
        yield from _with_bias(f"{block}self_attn.{name}_proj", (SIZE, SIZE))
    yield f"{block}self_attn.k_proj.weight", (SIZE, SIZE)
    yield from _with_bias(f"{block}mlp.fc1", (FORWARD, SIZE))
    yield from _with_bias(f"{block}mlp.fc2", (SIZE, FORWARD))
    yield from _with_bias(f"{block}input_layernorm", (SIZE,))
    yield from _with_bias(f"{block}post_attention_layernorm", (SIZE,))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
