"""Tensors of a tiny Gemma 4: a conformer encoder, and a text model with embeddings per layer.

Gemma 4 unified has neither: its projector makes an embedding of each frame of samples. Names and
shapes are those of `transformers`.
"""

from collections.abc import Iterator

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

Tensor = tuple[str, tuple[int, ...]]
"""The name and the shape of a tensor."""
Values = NDArray[np.float32]

SIZE, FORWARD, LAYERS, HEADS = 40, 160, 2, 2
CHANNELS = (128, 4)
"""Channels of the two convolutions; the first number is that of mels, too."""
KERNEL, OUTPUTS = 5, 48
FRAME_SAMPLES = 640
"""Samples of which Gemma 4 unified makes an embedding."""
LAYER_INPUTS = 8
"""The size of a token's embedding for each layer of the text model."""
SLIDING_WINDOW, LOGITS_CAP = 32, 30.0
PARTIAL_ROTARY, FULL_ROPE_BASE = 0.25, 1_000_000.0
"""Of layers with full attention."""
LAYER_TYPES = ("sliding_attention", "full_attention")
CLIPS = {"input_min": -2.5, "input_max": 2.4, "output_min": -3.5, "output_max": 3.4}
"""Bounds of the encoder's dense layers."""

_LAYER_NAMES = {
    "feed_forward1.pre_layer_norm": "ffn_norm",
    "feed_forward1.post_layer_norm": "ffn_post_norm",
    "feed_forward1.ffw_layer_1": "ffn_up",
    "feed_forward1.ffw_layer_2": "ffn_down",
    "feed_forward2.pre_layer_norm": "ffn_norm_1",
    "feed_forward2.post_layer_norm": "ffn_post_norm_1",
    "feed_forward2.ffw_layer_1": "ffn_up_1",
    "feed_forward2.ffw_layer_2": "ffn_down_1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.post": "attn_out",
    "self_attn.relative_k_proj": "attn_k_rel",
    "self_attn.per_dim_scale": "per_dim_scale",
    "lconv1d.pre_layer_norm": "conv_norm",
    "lconv1d.conv_norm": "norm_conv",
    "lconv1d.linear_start": "conv_pw1",
    "lconv1d.linear_end": "conv_pw2",
    "lconv1d.depthwise_conv1d": "conv_dw",
    "norm_pre_attn": "attn_pre_norm",
    "norm_post_attn": "attn_post_norm",
    "norm_out": "ln2",
}
_NAMES = {
    "audio_tower.subsample_conv_projection.layer0.conv": "a.conv1d.0",
    "audio_tower.subsample_conv_projection.layer0.norm": "a.conv1d.0.norm",
    "audio_tower.subsample_conv_projection.layer1.conv": "a.conv1d.1",
    "audio_tower.subsample_conv_projection.layer1.norm": "a.conv1d.1.norm",
    "audio_tower.subsample_conv_projection.input_proj_linear": "a.input_projection",
    "audio_tower.output_proj": "a.pre_encode.out",
    "embed_audio.embedding_projection": "mm.a.input_projection",
}


def tensors(text_size: int) -> Iterator[Tensor]:
    """The encoder's and the projector's tensors."""
    tower = "model.audio_tower."
    convolutions = f"{tower}subsample_conv_projection."
    first, second = CHANNELS
    for number, shape in enumerate(((first, 1, 3, 3), (second, first, 3, 3))):
        yield f"{convolutions}layer{number}.conv.weight", shape
        yield f"{convolutions}layer{number}.norm.weight", shape[:1]
    yield f"{convolutions}input_proj_linear.weight", (SIZE, first // 4 * second)
    for layer in range(LAYERS):
        yield from _conformer(f"{tower}layers.{layer}.")
    yield f"{tower}output_proj.weight", (OUTPUTS, SIZE)
    yield f"{tower}output_proj.bias", (OUTPUTS,)
    yield "model.embed_audio.embedding_projection.weight", (text_size, OUTPUTS)


def unified_tensors(text_size: int) -> Iterator[Tensor]:
    """The projector's tensor, which is all that Gemma 4 unified hears with."""
    yield "model.embed_audio.embedding_projection.weight", (text_size, FRAME_SAMPLES)


def text_tensors(size: int, layers: int, *, has_scalars: bool) -> Iterator[Tensor]:
    """Tensors of a text model of Gemma that others do not have. Gemma 2 has no scalars."""
    for layer in range(layers):
        block = f"model.language_model.layers.{layer}."
        yield f"{block}pre_feedforward_layernorm.weight", (size,)
        yield f"{block}post_feedforward_layernorm.weight", (size,)
        if has_scalars:
            yield f"{block}layer_scalar", (1,)


def layer_input_tensors(size: int, vocabulary: int, layers: int) -> Iterator[Tensor]:
    """The text model's tensors of embeddings per layer."""
    model = "model.language_model."
    yield f"{model}embed_tokens_per_layer.weight", (vocabulary, layers * LAYER_INPUTS)
    yield f"{model}per_layer_model_projection.weight", (layers * LAYER_INPUTS, size)
    yield f"{model}per_layer_projection_norm.weight", (LAYER_INPUTS,)
    for layer in range(layers):
        block = f"{model}layers.{layer}."
        yield f"{block}per_layer_input_gate.weight", (LAYER_INPUTS, size)
        yield f"{block}per_layer_projection.weight", (size, LAYER_INPUTS)
        yield f"{block}post_per_layer_input_norm.weight", (size,)


def add_gemma(writer: GGUFWriter, weights: dict[str, Values]) -> None:
    """Adds the tensors of the encoder and of the projector, in the form of llama.cpp."""
    for name, values in weights.items():
        inner = name.removeprefix("model.")
        if inner.startswith(("audio_tower.", "embed_audio.")):
            found, kind = _gguf_name(inner)
            writer.add_tensor(f"{found}.{kind}", _converted(inner, values))


def rotary_divisors(head_size: int) -> Values:
    """Divisors of the speeds of rotation in layers with full attention, which rotate a part of the
    dimensions."""
    rotated = int(head_size * PARTIAL_ROTARY / 2)
    return np.array([1.0] * rotated + [1e30] * (head_size // 2 - rotated), dtype=np.float32)


def _converted(name: str, values: Values) -> Values:
    if name.endswith("per_dim_scale"):
        return np.log1p(np.exp(values))
    if name.endswith("depthwise_conv1d.weight"):
        return values[:, 0]
    return values.reshape(1) if values.ndim == 0 else values


def _gguf_name(name: str) -> tuple[str, str]:
    """The name of a tensor, and its kind, such as `weight`."""
    if name.endswith("per_dim_scale"):
        name += ".weight"
    path, _, kind = name.replace(".linear.", ".").rpartition(".")
    if path in _NAMES:
        return _NAMES[path], kind
    _, _, layer, inner = path.split(".", 3)
    return f"a.blk.{layer}.{_LAYER_NAMES[inner]}", kind


def _conformer(block: str) -> Iterator[Tensor]:
    for name in ("feed_forward1", "feed_forward2"):
        yield f"{block}{name}.pre_layer_norm.weight", (SIZE,)
        yield from _clipped(f"{block}{name}.ffw_layer_1", (FORWARD, SIZE))
        yield from _clipped(f"{block}{name}.ffw_layer_2", (SIZE, FORWARD))
        yield f"{block}{name}.post_layer_norm.weight", (SIZE,)
    for name in ("q_proj", "k_proj", "v_proj", "post"):
        yield from _clipped(f"{block}self_attn.{name}", (SIZE, SIZE))
    yield f"{block}self_attn.relative_k_proj.weight", (SIZE, SIZE)
    yield f"{block}self_attn.per_dim_scale", (SIZE // HEADS,)
    yield f"{block}lconv1d.pre_layer_norm.weight", (SIZE,)
    yield from _clipped(f"{block}lconv1d.linear_start", (2 * SIZE, SIZE))
    yield f"{block}lconv1d.depthwise_conv1d.weight", (SIZE, 1, KERNEL)
    yield f"{block}lconv1d.conv_norm.weight", (SIZE,)
    yield from _clipped(f"{block}lconv1d.linear_end", (SIZE, SIZE))
    for name in ("norm_pre_attn", "norm_post_attn", "norm_out"):
        yield f"{block}{name}.weight", (SIZE,)


def _clipped(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield f"{name}.linear.weight", shape
    for bound in CLIPS:
        yield f"{name}.{bound}", ()
